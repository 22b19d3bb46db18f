"""`python -m ragcore.cli`: the `ragcore` command where it is not on the PATH."""

from ragcore.cli import main

main()

"""The `ragcore` command. Importing this package loads nothing; `main` loads the commands.

Exit codes and the shape of `--json` are public: docs/reference/cli.md lists both.
"""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from ragcore.cli.app import run

    run()

"""Real servers out of Python packages: PostgreSQL with pgvector, and Valkey.

`async with embedded_servers(data_dir) as servers` is the whole interface. Everything lives in one
data directory:

    postgres/, valkey/   the servers' own files, owned by the unprivileged user when root started
    run/                 locks and the state of what runs now, readable by the owner alone
    logs/                what the servers and their supervisors say
    secrets/             the servers' passwords, likewise
    programs/            copies of the server programs, where that user can't read the originals

Each server has a small supervisor process of its own (`supervisor.py`), shared by every process
that uses the data directory and gone with the last of them.
"""

from ragcore.embedded.launcher import EmbeddedServers, embedded_servers

__all__ = ["EmbeddedServers", "embedded_servers"]

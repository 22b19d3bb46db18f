"""Run the embedded servers while this process lives: `python -m ragcore.embedded --data-dir DIR`.

Prints their addresses as one JSON object and waits for SIGINT, SIGTERM or the end of its input.
"""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from ragcore.embedded.launcher import embedded_servers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ragcore.embedded")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--no-valkey", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.data_dir, valkey=not arguments.no_valkey))


async def _serve(data_dir: Path, *, valkey: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with embedded_servers(data_dir, valkey=valkey) as servers:
        addresses = {"database_url": servers.database_url}
        if valkey:
            addresses["redis_url"] = servers.redis_url
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    main()

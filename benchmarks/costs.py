"""What a piece of work cost, by the clock and in processor time, which other load leaves alone."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ragcore.adapters.postgres.pool import Connection


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock and of processor: the server process's, and the client's own."""

    wall: float = 0.0
    server: float = 0.0
    client: float = 0.0

    @property
    def processor(self) -> float:
        return self.server + self.client

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.server + other.server, self.client + other.client)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.server - other.server, self.client - other.client)


def now(connection: Connection) -> Cost:
    """Read the clocks; the difference of two readings is a cost.

    The server must run on this machine. Its clock ticks every 10 ms: add up many calls.
    """
    stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    server = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Cost(time.perf_counter(), server, time.process_time())

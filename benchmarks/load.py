"""A closed loop of HTTP clients on loopback that costs little processor time itself."""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Load:
    """What a block of requests saw."""

    requests: int
    seconds: float
    times: Sequence[float]
    processor: float
    """Seconds of processor time of the server process."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds within which so many of the requests were answered."""
        return 1000 * sorted(self.times)[min(int(share * len(self.times)), len(self.times) - 1)]

    @property
    def p50(self) -> float:
        return 1000 * statistics.median(self.times)

    @property
    def processor_ms(self) -> float:
        """Milliseconds of the server's processor time a request."""
        return 1000 * self.processor / self.requests


class Connection:
    """One kept-alive connection that posts JSON with a key. Raises for answers other than 200."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str | None
    ) -> None:
        self._reader, self._writer, self._key = reader, writer, key

    @classmethod
    async def open(cls, port: int, *, key: str | None = None) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port), key)

    async def post(self, path: str, content: bytes) -> bytes:
        authorization = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        return await self._answer()

    async def _answer(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        content = await self._reader.readexactly(length)
        status = head.split(b" ", 2)[1]
        if status != b"200":
            raise RuntimeError(f"status {status.decode()}: {content[:500]!r}")
        return content

    def close(self) -> None:
        self._writer.close()


async def post_for(
    port: int,
    path: str,
    bodies: Sequence[dict[str, Any]],
    *,
    clients: int,
    seconds: float,
    pid: int,
    key: str | None = None,
) -> Load:
    """Post the bodies in turns from so many clients for so long."""
    contents = [json.dumps(body).encode() for body in bodies]
    times: list[float] = []
    processor, started = processor_seconds(pid), time.perf_counter()

    async def client(number: int) -> None:
        connection = await Connection.open(port, key=key)
        turn = number * len(contents) // clients
        while time.perf_counter() < started + seconds:
            before = time.perf_counter()
            await connection.post(path, contents[turn % len(contents)])
            times.append(time.perf_counter() - before)
            turn += 1
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    elapsed = time.perf_counter() - started
    return Load(len(times), elapsed, times, processor_seconds(pid) - processor)


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far; its clock ticks every 10 ms."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

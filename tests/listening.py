"""A web server on loopback that answers what it is told to, and counts who gets through to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

Answers = bytes | Callable[[bytes], bytes]
"""What is sent, or made of the request."""


class Listener:
    def __init__(self) -> None:
        self.answers: dict[str, Answers] = {}
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self.hold = asyncio.Event()
        """Awaited in the middle of answers to `/slow`."""

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Listener"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        servers = [server]
        with suppress(OSError):  # a machine without IPv6, or the port is taken there
            servers.append(await asyncio.start_server(self._serve, "::1", self.port, ssl=tls))
        try:
            yield self
        finally:
            self.hold.set()
            for each in servers:
                each.close()
                await each.wait_closed()

    def url(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [request.split()[1].decode() for request in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            path = request.split()[1].decode()
            answers = self.answers.get(path.partition("?")[0], answer(b"", status=404))
            writer.write(answers if isinstance(answers, bytes) else answers(request))
            await writer.drain()
            if path == "/slow":
                await self.hold.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answer(body: bytes, *, status: int = 200, **headers: str) -> bytes:
    """Spell an answer; underscores in names of headers stand for hyphens."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have the loop resolve every name to these addresses; returns the names it was asked for."""
    asked: list[str] = []

    async def getaddrinfo(
        self: asyncio.AbstractEventLoop, host: str, port: int, **options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if host not in addresses:  # connecting looks up the address, too
            asked.append(host)
            return [(2, 1, 6, "", (address, port)) for address in addresses]
        return [(2, 1, 6, "", (host, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked

"""What stands in for a pooler between a pool of connections and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_BACKEND_KEY = b"K\0\0\0\x0c"  # the type of the message and its length, before two numbers


@asynccontextmanager
async def pooler(database_url: str) -> AsyncIterator[str]:
    """Stand before PostgreSQL as a pooler does: with a made-up process id for each connection.

    It gives every connection a server process of its own, which a real one would not.
    """
    server = urlsplit(database_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own_reader, own_writer = await asyncio.open_connection(server.hostname, server.port)
        both = (_pump(reader, own_writer), _pump(own_reader, writer, change=_made_up))
        with suppress(ConnectionError):
            await asyncio.gather(*both)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield database_url.replace(f":{server.port}/", f":{port}/")


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    change: Callable[[bytes], bytes] = bytes,
) -> None:
    try:
        while received := await reader.read(65536):
            writer.write(change(received))
            await writer.drain()
    finally:
        writer.close()


def _made_up(received: bytes) -> bytes:
    at = received.find(_BACKEND_KEY)
    if at < 0:
        return received
    return received[: at + 5] + b"\x7f\xff\xff\xfe" + received[at + 9 :]

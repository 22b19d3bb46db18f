"""Files in a dictionary."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

from ragcore.errors import BlobNotFound


class MemoryBlobs:
    """`ports.BlobStore` for tests of flows."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, float]] = {}

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        content = b"".join([chunk async for chunk in chunks])
        self.files[key] = (content, time.time())
        return len(content)

    async def put_file(self, key: str, path: Path) -> int:
        self.files[key] = (path.read_bytes(), time.time())
        return path.stat().st_size

    async def open(self, key: str) -> AsyncIterator[bytes]:
        yield self._content(key)

    async def fetch(self, key: str, path: Path) -> None:
        path.write_bytes(self._content(key))

    async def delete_prefix(self, prefix: str) -> int:
        gone = [key for key in self.files if key.startswith(prefix)]
        for key in gone:
            del self.files[key]
        return len(gone)

    async def list(self, prefix: str = "") -> AsyncIterator[tuple[str, float]]:
        for key, (_, written) in sorted(self.files.items()):
            if key.startswith(prefix):
                yield key, time.time() - written

    def _content(self, key: str) -> bytes:
        if key not in self.files:
            raise BlobNotFound(f"there is no stored file {key!r}")
        return self.files[key][0]

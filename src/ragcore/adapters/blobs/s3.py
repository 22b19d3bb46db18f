"""Files in a bucket of any S3 server, through the `minio` SDK.

The SDK is synchronous, so its calls run in a small thread pool of the adapter's own.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from ragcore.errors import BlobNotFound, BlobsUnavailable, MissingExtra, NotConfigured

if TYPE_CHECKING:
    from minio import Minio

_PIECE = 1 << 20
_T = TypeVar("_T")


class S3Blobs:
    """`ports.BlobStore` over one bucket; an S3 `PUT` is whole or not at all by itself."""

    def __init__(self, client: "Minio", bucket: str, *, threads: int = 8) -> None:
        self._client = client
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="s3")

    @classmethod
    def from_url(cls, url: str) -> "S3Blobs":
        """Open `s3://key:secret@host:port/bucket?secure=true&region=…`; connects on first use.

        Raises NotConfigured for another form, MissingExtra without the `minio` package.
        """
        try:
            from minio import Minio
        except ImportError as error:
            raise MissingExtra("S3 needs `pip install 'ragcore[s3]'`") from error
        parts = urlsplit(url)
        bucket = parts.path.strip("/")
        if parts.scheme != "s3" or not parts.hostname or not bucket or "/" in bucket:
            raise NotConfigured(
                "RAGCORE_BLOBS_URL must look like s3://key:secret@host:port/bucket?secure=true"
            )
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        endpoint = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        client = Minio(
            endpoint,
            access_key=unquote(parts.username or ""),
            secret_key=unquote(parts.password or ""),
            secure=options.get("secure", "true").lower() != "false",
            region=options.get("region"),
        )
        return cls(client, bucket)

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        # The SDK wants a file or a size: the stream rests on local disk, never whole in memory.
        with tempfile.TemporaryDirectory(prefix="ragcore-s3-") as directory:
            path = Path(directory, "upload")
            file = await asyncio.to_thread(path.open, "wb")
            with file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            return await self.put_file(key, path)

    async def put_file(self, key: str, path: Path) -> int:
        await self._call(key, lambda: self._client.fput_object(self._bucket, key, str(path)))
        return path.stat().st_size

    async def open(self, key: str) -> AsyncIterator[bytes]:
        response = await self._call(key, lambda: self._client.get_object(self._bucket, key))
        try:
            while piece := await self._call(key, lambda: response.read(_PIECE)):
                yield piece
        finally:
            response.close()
            response.release_conn()

    async def fetch(self, key: str, path: Path) -> None:
        await self._call(key, lambda: self._client.fget_object(self._bucket, key, str(path)))

    async def delete_prefix(self, prefix: str) -> int:
        keys = [key async for key, _ in self.list(prefix)]
        for key in keys:  # one by one: not every S3 server knows the bulk call
            await self._call(key, partial(self._client.remove_object, self._bucket, key))
        return len(keys)

    async def list(self, prefix: str = "") -> AsyncIterator[tuple[str, float]]:
        now = time.time()
        pages: Iterator[Any] = await self._call(
            prefix, lambda: self._client.list_objects(self._bucket, prefix, recursive=True)
        )
        while (entry := await self._call(prefix, lambda: next(pages, None))) is not None:
            yield entry.object_name, now - entry.last_modified.timestamp()

    async def prepare(self) -> None:
        """Make the bucket when it is missing. Safe to repeat."""

        def make() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

        await self._call(self._bucket, make)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def _call(self, key: str, function: Callable[[], _T]) -> _T:
        with _translated(key):
            return await asyncio.get_running_loop().run_in_executor(self._pool, function)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject", "NoSuchVersion"):
            raise BlobNotFound(f"there is no stored file {key!r}") from error
        raise BlobsUnavailable(f"the S3 server refused {key!r}: {error.code}") from error
    except (MinioException, HTTPError, OSError) as error:
        raise BlobsUnavailable(f"the S3 server did not answer for {key!r}: {error}") from error

"""Buckets that documents come from: any S3 server that is configured, through the `minio` SDK.

Nothing is written. The SDK is synchronous, so its calls run in a small thread pool of the
adapter's own.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from ragcore.errors import (
    BucketNotFound,
    Forbidden,
    MissingExtra,
    NotConfigured,
    ObjectGone,
    SourceUnavailable,
)
from ragcore.model import BucketObject
from ragcore.ports import OpenObject
from ragcore.steps.filenames import bare_name

if TYPE_CHECKING:
    from minio import Minio

_PIECE_BYTES: Final = 1 << 20
_PAGE: Final = 1000
_META: Final = "x-amz-meta-"
_GONE: Final = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion"})
_REFUSED: Final = frozenset(
    {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BucketServer:
    """Where buckets are, and which of them may be read."""

    name: str
    """As configured, for messages."""
    url: str
    """`https://s3.example.org`, `http://minio:9000`; no path."""
    buckets: tuple[str, ...]
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    region: str | None = None
    is_virtual_style: bool = False
    """The bucket is part of the host's name, not of the path."""
    ca_file: Path | None = None
    """Certificates to trust besides the system's; None: none."""
    collections: tuple[str, ...] = ()
    """Which collections its buckets may be ingested into; none named: all."""
    timeout_seconds: float = 60.0
    """Of a read, not of a whole object."""


class S3Buckets:
    """`ports.Buckets` over configured servers; connects on first use. Closed with `aclose`."""

    def __init__(self, servers: Sequence[BucketServer], *, threads: int = 8) -> None:
        """Raises NotConfigured for what can't be meant, MissingExtra without the `minio` SDK."""
        self._servers: dict[str, BucketServer] = {}
        self._clients: dict[str, Minio] = {}
        for server in servers:
            client = _client(server, threads)
            for bucket in server.buckets:
                if bucket in self._servers:
                    raise NotConfigured(
                        f"the bucket {bucket!r} is configured at {self._servers[bucket].name!r} "
                        f"and at {server.name!r}; s3://{bucket}/… must mean one of them"
                    )
                self._servers[bucket], self._clients[bucket] = server, client
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="buckets")

    @property
    def names(self) -> Sequence[str]:
        """Every bucket that is configured."""
        return tuple(self._servers)

    def require(self, bucket: str, *, collection: str) -> None:
        server = self._server(bucket)
        if server.collections and collection not in server.collections:
            raise Forbidden(f"bucket {bucket!r} is not for collection {collection!r}")

    async def list(self, bucket: str, prefix: str) -> AsyncGenerator[Sequence[BucketObject], None]:
        client = self._client(bucket)
        entries = client.list_objects(bucket, prefix=prefix, recursive=True)
        while page := await self._call(bucket, lambda: list(islice(entries, _PAGE))):
            yield [_listed(bucket, entry) for entry in page if not entry.is_dir]

    async def find(self, bucket: str, key: str) -> BucketObject | None:
        client = self._client(bucket)
        try:
            found = await self._call(bucket, lambda: client.stat_object(bucket, key), key=key)
        except ObjectGone:
            return None
        return _listed(bucket, found)

    @asynccontextmanager
    async def open(self, bucket: str, key: str) -> AsyncIterator[OpenObject]:
        client = self._client(bucket)
        response = await self._call(bucket, lambda: client.get_object(bucket, key), key=key)
        try:
            headers: Mapping[str, str] = response.headers
            metadata = _metadata(headers)
            warnings: tuple[str, ...] = ()
            if headers.get("x-amz-tagging-count", "0") != "0":
                tags, warnings = await self._tags(bucket, key)
                metadata |= tags
            yield OpenObject(
                object=_read(bucket, key, headers),
                filename=bare_name(key),
                mime_type=headers.get("content-type"),
                metadata=metadata,
                warnings=warnings,
                pieces=self._pieces(bucket, key, response),
            )
        finally:
            # Not drained: what was not read is dropped with the connection.
            await asyncio.get_running_loop().run_in_executor(self._pool, response.close)
            response.release_conn()

    async def answers(self, bucket: str) -> None:
        """Look whether a bucket can be listed. Raises as listing does."""
        client = self._client(bucket)
        await self._call(bucket, lambda: next(iter(client.list_objects(bucket)), None))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _tags(self, bucket: str, key: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the tags; who may read an object may still not be let see those."""
        client = self._client(bucket)
        try:
            tags = await self._call(bucket, lambda: client.get_object_tags(bucket, key), key=key)
        except NotConfigured as error:
            return {}, (f"the object's tags are not known: {error}",)
        return {name: _value(text) for name, text in (tags or {}).items()}, ()

    async def _pieces(self, bucket: str, key: str, response: Any) -> AsyncIterator[bytes]:
        while piece := await self._call(bucket, lambda: response.read(_PIECE_BYTES), key=key):
            yield piece

    def _server(self, bucket: str) -> BucketServer:
        if bucket not in self._servers:
            raise BucketNotFound(
                f"the bucket {bucket[:80]!r} is not configured; an operator names it in "
                "RAGCORE_BUCKETS__SERVERS__NAME__BUCKETS"
            )
        return self._servers[bucket]

    def _client(self, bucket: str) -> "Minio":
        self._server(bucket)
        return self._clients[bucket]

    async def _call(self, bucket: str, function: Callable[[], _T], *, key: str = "") -> _T:
        with _translated(self._servers[bucket], bucket, key):
            return await asyncio.get_running_loop().run_in_executor(self._pool, function)


def _client(server: BucketServer, threads: int) -> "Minio":
    try:
        import urllib3
        from minio import Minio
    except ImportError as error:
        raise MissingExtra("buckets need `pip install 'ragcore[s3]'`") from error
    parts = urlsplit(server.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise NotConfigured(
            f"the URL of the bucket server {server.name!r} must look like https://host:port"
        )
    transport = urllib3.PoolManager(
        maxsize=threads,
        timeout=urllib3.Timeout(connect=5.0, read=server.timeout_seconds),
        retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        ca_certs=None if server.ca_file is None else str(server.ca_file),
    )
    client = Minio(
        parts.netloc.rpartition("@")[2],
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=parts.scheme == "https",
        region=server.region,
        http_client=transport,
    )
    if server.is_virtual_style:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]  # the SDK's
    else:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def _listed(bucket: str, entry: Any) -> BucketObject:
    modified = entry.last_modified
    return BucketObject(
        bucket=bucket,
        key=entry.object_name,
        size_bytes=entry.size or 0,
        etag=(entry.etag or "").strip('"'),
        modified_at=0 if modified is None else int(modified.timestamp()),
    )


def _read(bucket: str, key: str, headers: Mapping[str, str]) -> BucketObject:
    modified = headers.get("last-modified")
    return BucketObject(
        bucket=bucket,
        key=key,
        size_bytes=int(headers.get("content-length", 0)),
        etag=headers.get("etag", "").strip('"'),
        modified_at=0 if modified is None else int(parsedate_to_datetime(modified).timestamp()),
    )


def _metadata(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what the owner said of an object, names in lower case."""
    return {
        name.lower().removeprefix(_META): _value(_decoded(value))
        for name, value in headers.items()
        if name.lower().startswith(_META)
    }


def _decoded(value: str) -> str:
    """Return a header as text: UTF-8 comes bare, or in RFC 2047's way."""
    with suppress(UnicodeError):  # it was text already
        value = value.encode("latin-1").decode()
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeError):
        return value


def _value(text: str) -> Any:
    """Take numbers and booleans for what they are, so that filters can compare them."""
    try:
        value = json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


@contextmanager
def _translated(server: BucketServer, bucket: str, key: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    where = f"{bucket!r} at {server.name!r}"
    try:
        yield
    except S3Error as error:
        if error.code == "NoSuchBucket":
            raise BucketNotFound(f"the server has no bucket {where}") from error
        if error.code in _GONE:
            raise ObjectGone(f"there is no object {key!r} in {where} any more") from error
        if error.code in _REFUSED:
            raise NotConfigured(
                f"the server does not let us read {where}: {error.code}; check "
                f"RAGCORE_BUCKETS__SERVERS__{server.name.upper()}__ACCESS_KEY and what it may do"
            ) from error
        raise SourceUnavailable(
            f"the server refused {key or 'to list'} of {where}: {error.code}"
        ) from error
    except (MinioException, HTTPError, OSError, ParseError) as error:
        raise SourceUnavailable(
            f"the server did not answer for {where}: {type(error).__name__}: {error}"
        ) from error

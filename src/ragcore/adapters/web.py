"""Calling URLs that strangers named, without being led astray.

A name is resolved here, every address it has is checked, and the connection goes to a checked
address: nothing is resolved a second time, so an answer that changes in between changes nothing.
Redirects are followed by hand, each hop checked like the first. Proxies and credentials of the
environment are not used, and no cookie is kept: what one document's server says is told to none.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import httpx

from ragcore.errors import ForbiddenUrl, InvalidInput, NotConfigured, SourceUnavailable
from ragcore.model import PageMarks
from ragcore.ports import OpenPage
from ragcore.steps.filenames import bare_name, filename_in

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_URL: Final = 4096
_PIECE_BYTES: Final = 256 * 1024
_HEADERS: Final = {
    "User-Agent": "ragcore",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}
_TRANSIENT: Final = frozenset({408, 425, 429})
_LONGEST_MARK: Final = 1000
_MARK: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]*")
"""What can be sent back as a header just as it came."""

# Spelled out, because what Python calls global changes from release to release.
_CLOSED_V4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and where clouds serve their metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_OPEN_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that is assigned as global unicast; loopback, mapped, local, multicast … lie outside."""
_CLOSED_V6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "2620:4f:8000::/48",
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER: Final = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")


def is_public(address: Address) -> bool:
    """Say whether an address is one of the open internet and nothing of this network's own."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    if address in _NAT64:  # how a network without IPv4 reaches it: what counts is the other end
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


class Guard:
    """Decides which URLs may be called. Hosts named in `allowed_hosts` may have any address."""

    def __init__(self, allowed_hosts: Collection[str] = ()) -> None:
        urls = [httpx.URL(scheme="http", host=host) for host in allowed_hosts]
        self._allowed = frozenset(_host_name(url) for url in urls)

    async def check(self, url: str) -> None:
        """Raise what calling the URL would raise at once: see `checked_url` and `addresses`."""
        await self.addresses(checked_url(url))

    async def addresses(self, url: httpx.URL) -> Sequence[Address]:
        """Return where the host of the URL is; all of it may be called.

        Raises ForbiddenUrl when any of its addresses is not public, InvalidInput when there is no
        such host, SourceUnavailable when that can't be told now.
        """
        host = _host_name(url)
        if _is_odd_number(host):
            raise ForbiddenUrl(f"{host!r} is an unusual spelling of an address")
        found = await _resolved(host, url.port or _default_port(url))
        if host not in self._allowed:
            for address in found:
                if not is_public(address):
                    raise ForbiddenUrl(
                        f"{host!r} leads to {address}, which must not be called from here; "
                        "an operator can allow the host by name"
                    )
        return found


def checked_url(url: str) -> httpx.URL:
    """Parse a URL, without its fragment. Raises InvalidInput, or ForbiddenUrl.

    Forbidden are schemes other than http and https, and credentials in the URL.
    """
    if len(url) > _LONGEST_URL:
        raise InvalidInput(f"the URL is longer than {_LONGEST_URL} characters")
    if "\\" in url or any(character.isspace() for character in url):
        raise InvalidInput(f"{url[:200]!r} holds a space or a backslash; encode them")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise InvalidInput(f"{url[:200]!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https"):
        raise ForbiddenUrl(f"only http and https URLs are called, not {parsed.scheme[:40]!r}")
    if parsed.userinfo:
        raise ForbiddenUrl("a URL with a user name or password in it is not called")
    if not parsed.host:
        raise InvalidInput(f"{url[:200]!r} names no host")
    return parsed.copy_with(fragment=None)


class Web:
    """HTTP to the outside, `ports.Pages` among it. One per purpose; closed with `aclose`."""

    def __init__(
        self,
        *,
        allowed_hosts: Collection[str] = (),
        timeout_seconds: float = 60.0,
        max_redirects: int = 5,
        ca_file: Path | None = None,
    ) -> None:
        """Raises NotConfigured for a `ca_file` that holds no certificates."""
        self.guard = Guard(allowed_hosts)
        self._timeout_seconds = timeout_seconds
        self._max_redirects = max_redirects
        self._client = httpx.AsyncClient(
            transport=GuardedTransport(self.guard, _trusting(ca_file)),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            timeout=min(timeout_seconds, 30.0),
            headers=_HEADERS,
        )

    def canonical(self, url: str) -> str:
        return str(checked_url(url))

    async def check(self, url: str) -> None:
        """Raise ForbiddenUrl, InvalidInput or SourceUnavailable as a call would at once."""
        await self.guard.check(url)

    @asynccontextmanager
    async def get(
        self, url: str, *, known: PageMarks | None = None
    ) -> AsyncIterator[OpenPage | None]:
        """Do as `ports.Pages` says, for as long as the block lasts and the time limit allows."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with _translated(url):
                    response = await self._followed(checked_url(url), known)
                    try:
                        is_known = response.status_code == httpx.codes.NOT_MODIFIED
                        yield None if is_known else _page(url, response)
                    finally:
                        await response.aclose()
        except TimeoutError as error:
            raise SourceUnavailable(
                f"{_shown(url)} did not answer in full within {self._timeout_seconds:g} s"
            ) from error

    async def post(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int:
        """Send a body and return the status; redirects are not followed, the answer is not read.

        Raises as `get` does, but for what the status says.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with _translated(url):
                    request = self._client.build_request(
                        "POST", checked_url(url), content=content, headers=headers
                    )
                    response = await self._client.send(request, stream=True)
                    await response.aclose()
                    return response.status_code
        except TimeoutError as error:
            raise SourceUnavailable(
                f"{_shown(url)} did not answer within {self._timeout_seconds:g} s"
            ) from error

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _followed(self, url: httpx.URL, known: PageMarks | None) -> httpx.Response:
        """Return the first answer that is no redirect; its body is not read."""
        for _ in range(self._max_redirects + 1):
            asked = _conditions(url, known)
            request = self._client.build_request("GET", url, headers=asked)
            response = await self._client.send(request, stream=True)
            if not response.has_redirect_location:
                return await _accepted(response, may_be_known=bool(asked))
            await response.aclose()
            target = response.headers["location"]
            try:
                url = checked_url(str(url.join(target)))
            except (httpx.InvalidURL, ValueError, UnicodeError) as error:
                raise InvalidInput(f"{_shown(url)} redirects to {target[:200]!r}") from error
        raise InvalidInput(f"{_shown(url)} is behind more than {self._max_redirects} redirects")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to addresses that the guard has checked, and to no others.

    Connections are not kept: they are known by address, and two hosts may share one whose
    certificate was checked for the first of them.
    """

    def __init__(self, guard: Guard, trusted: ssl.SSLContext) -> None:
        self._guard = guard
        self._inner = httpx.AsyncHTTPTransport(
            verify=trusted, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Try one address after the other, until one takes the connection."""
        addresses = await self._guard.addresses(request.url)
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, addresses[-1]))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    trusted = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            trusted.load_verify_locations(ca_file)
        except OSError as error:  # of ssl, too
            raise NotConfigured(
                f"certificates can't be read from RAGCORE_FETCH__CA_FILE {str(ca_file)!r}: {error}"
            ) from error
    return trusted


def _pinned(request: httpx.Request, address: Address) -> httpx.Request:
    """Return the same request to that address; the `Host` header and TLS keep the host's name."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,  # with the `Host` of the URL as it was
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": _host_name(request.url)},
    )


async def _resolved(host: str, port: int) -> Sequence[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass  # a name
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise SourceUnavailable(f"{host!r} can't be resolved now: {error.strerror}") from error
        raise InvalidInput(f"there is no host {host[:200]!r}: {error.strerror}") from error
    except (UnicodeError, OSError) as error:  # a label too long, a NUL
        raise InvalidInput(f"{host[:200]!r} is no name of a host: {error}") from error
    return list(dict.fromkeys(_address(each[4][0]) for each in found))


def _address(text: str | int) -> Address:
    return ipaddress.ip_address(str(text).partition("%")[0])


def _host_name(url: httpx.URL) -> str:
    """Return the host as it is resolved and compared: ASCII, lower case, without the root's dot."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _is_odd_number(host: str) -> bool:
    """Say whether resolvers would read a number as an address: octal, hexadecimal, short forms."""
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _conditions(url: httpx.URL, known: PageMarks | None) -> Mapping[str, str]:
    """Return the headers that ask whether a page has changed; none for one that is not known."""
    if known is None or str(url) != known.url:
        return {}
    marks = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: mark for name, mark in marks.items() if mark is not None}


async def _accepted(response: httpx.Response, *, may_be_known: bool) -> httpx.Response:
    """Return a good answer; close another and raise."""
    status = response.status_code
    if status == httpx.codes.OK or (may_be_known and status == httpx.codes.NOT_MODIFIED):
        return response
    await response.aclose()
    if status >= 500 or status in _TRANSIENT:
        raise SourceUnavailable(f"{_shown(response.url)} answered {status}; try again later")
    raise InvalidInput(f"{_shown(response.url)} answered {status} where a document was expected")


def _page(url: str, response: httpx.Response) -> OpenPage:
    headers = response.headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    length = headers.get("content-length", "")
    return OpenPage(
        marks=PageMarks(
            uri=str(checked_url(url)),
            url=str(response.url),
            etag=_mark(headers.get("etag")),
            last_modified=_mark(headers.get("last-modified")),
            mime_type=_mark(headers.get("content-type")),
        ),
        filename=_filename(response),
        size_bytes=int(length) if length.isascii() and length.isdigit() else None,
        pieces=_unpacked(response, encoding),
    )


def _mark(header: str | None) -> str | None:
    """Return a header that can be kept; None for one that is too long or odd."""
    if header is None or len(header) > _LONGEST_MARK or not _MARK.fullmatch(header.strip()):
        return None
    return header.strip()


def _filename(response: httpx.Response) -> str | None:
    disposition = next(
        (value for name, value in response.headers.raw if name.lower() == b"content-disposition"),
        b"",
    )
    return filename_in(disposition) or bare_name(unquote(response.url.path)) or None


async def _unpacked(response: httpx.Response, encoding: str) -> AsyncIterator[bytes]:
    """Yield the body. Servers that pack it unasked are unpacked, once, in bounded pieces."""
    if encoding == "identity":
        async for piece in response.aiter_raw(_PIECE_BYTES):
            yield piece
        return
    if encoding not in ("gzip", "x-gzip"):
        raise InvalidInput(f"the server packs its answer by {encoding[:80]!r}, unasked")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    async for packed in response.aiter_raw(_PIECE_BYTES):
        for piece in _unpack(unpacker, packed):
            yield piece
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("the server's packed answer is cut short, or more than one")


def _unpack(unpacker: "zlib._Decompress", packed: bytes) -> Iterator[bytes]:
    """Yield what some bytes unpack to; a bomb comes in pieces like anything else."""
    while True:
        try:
            piece = unpacker.decompress(packed, _PIECE_BYTES)
        except zlib.error as error:
            raise InvalidInput(f"the server's packed answer is damaged: {error}") from error
        packed = unpacker.unconsumed_tail
        if piece:
            yield piece
        if not packed and len(piece) < _PIECE_BYTES:
            return


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.UnsupportedProtocol as error:
        raise ForbiddenUrl(f"{_shown(url)}: {error}") from error
    except httpx.InvalidURL as error:  # httpx looks where a redirect leads before we do
        raise InvalidInput(f"{_shown(url)} redirects to what is no URL: {error}") from error
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"{_shown(url)} did not answer ({type(error).__name__}: {error}); try again later"
        ) from error


def _shown(url: str | httpx.URL) -> str:
    """Return a URL for a message: without its query, which may hold somebody's token."""
    return repr(str(url).partition("?")[0][:200])

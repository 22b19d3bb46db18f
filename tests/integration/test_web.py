"""Fetching what strangers name: a listener on loopback counts who gets through to it."""

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragcore.adapters.web import Guard, Page, Web, is_public
from ragcore.errors import ForbiddenUrl, InvalidInput, SourceUnavailable


class Listener:
    """A web server on loopback that answers what it is told to, and counts connections."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self.hold = asyncio.Event()
        """Awaited in the middle of answers to `/slow`."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.hold.set()
            server.close()
            await server.wait_closed()

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            path = request.split()[1].decode()
            writer.write(self.answers.get(path.partition("?")[0], answer(b"", status=404)))
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


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with Listener().listening() as listener:
        yield listener


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """Lets nothing but the open internet through."""
    web = Web()
    yield web
    await web.aclose()


@pytest.fixture
async def local() -> AsyncIterator[Web]:
    """Lets 127.0.0.1 through, by that name alone."""
    web = Web(allowed_hosts=["127.0.0.1"], max_redirects=3)
    yield web
    await web.aclose()


async def read(web: Web, url: str) -> tuple[Page, bytes]:
    async with web.get(url) as page:
        return page, b"".join([piece async for piece in page.pieces])


# --- what must not be reached --------------------------------------------------------------

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0",
    "0.0.0.0",  # noqa: S104
    "0.0.0.0.",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "00000177.0.0.01",
    "127.0.0.01",
    "127.0.0.0x1",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[2001:0000:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1%25lo]",
    "[::1%25lo]",
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "localhost..",
    "ｌｏｃａｌｈｏｓｔ",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127．0．0．1",
    "127%2e0%2e0%2e1",
    "%6c%6f%63%61%6c%68%6f%73%74",
    "127.0.0.1%00.example.com",
    "example.com@127.0.0.1",
    "example.com:80@127.0.0.1",
    "@127.0.0.1",
    "127.0.0.1\\@example.com",
    "127.0.0.1\t",
    "",
]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
@pytest.mark.parametrize("way", ["fetch", "post", "check"])
async def test_no_spelling_of_loopback_is_called(
    web: Web, listener: Listener, host: str, way: str
) -> None:
    listener.answers["/"] = answer(b"secret")
    url = listener.url("/", host=host)
    calls: Mapping[str, Callable[[], Awaitable[Any]]] = {
        "fetch": lambda: read(web, url),
        "post": lambda: web.post(url, content=b"", headers={}),
        "check": lambda: web.check(url),
    }
    with pytest.raises((ForbiddenUrl, InvalidInput)):
        await calls[way]()
    assert listener.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "unix:///var/run/docker.sock",
        "data:text/plain,x",
        "s3://bucket/key",
        "//example.com/x",
        "/etc/passwd",
        "http://user:password@example.com/",
        "https://user@example.com/",
    ],
)
async def test_other_schemes_and_credentials_are_forbidden(web: Web, url: str) -> None:
    with pytest.raises(ForbiddenUrl):
        await web.check(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1",
        "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9",
        "::", "::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "::8.8.8.8", "fc00::1", "fd00:ec2::254",
        "fe80::1", "fec0::1", "ff02::1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1", "2001::1",
        "2001:db8::1", "2002:a00:1::", "3fff::1", "5f00::1",
    ],
)  # fmt: skip
def test_addresses_of_networks_of_our_own_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_a_name_with_one_private_address_among_public_ones_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "93.184.216.34", "10.0.0.7")
    with pytest.raises(ForbiddenUrl, match=r"10\.0\.0\.7"):
        await Guard().check("https://rebind.example/")


async def test_a_name_is_resolved_once_and_the_checked_address_is_called(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    """A second answer of the name server, another than the first, changes nothing."""
    asked = resolve_to(monkeypatch, "127.0.0.1")
    listener.answers["/"] = answer(b"hello")
    web = Web(allowed_hosts=["Named.Example"])
    _, body = await read(web, listener.url("/", host="named.example"))
    await web.aclose()
    assert body == b"hello"
    assert asked == ["named.example"]
    assert f"Host: named.example:{listener.port}".encode() in listener.requests[0]


async def test_an_allowed_host_lets_no_other_name_of_its_address_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "10.0.0.7")
    guard = Guard(["n8n"])
    await guard.check("http://n8n:5678/webhook")
    await guard.check("http://N8N.:5678/webhook")
    for url in ("http://other/", "http://n8n.evil.example/", "http://10.0.0.7/"):
        with pytest.raises(ForbiddenUrl):
            await guard.check(url)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, name: str
) -> None:
    monkeypatch.setenv(name, listener.url(""))
    resolve_to(monkeypatch, "192.0.2.1")
    web = Web()
    with pytest.raises(ForbiddenUrl):
        await read(web, "http://example.com/")
    await web.aclose()
    assert listener.connections == 0


# --- redirects -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "http://2130706433:{port}/secret",
        "//localhost:{port}/secret",
        "file:///etc/passwd",
        "http://user@127.0.0.1:{port}/secret",
    ],
)
async def test_a_redirect_to_where_one_must_not_go_is_not_followed(
    local: Web, listener: Listener, status: int, target: str
) -> None:
    listener.answers["/"] = answer(b"", status=status, Location=target.format(port=listener.port))
    listener.answers["/secret"] = answer(b"secret")
    with pytest.raises(ForbiddenUrl):
        await read(local, listener.url("/"))
    assert listener.connections == 1  # the first hop, which is allowed


async def test_redirects_are_followed_up_to_the_limit(local: Web, listener: Listener) -> None:
    for number in range(4):
        listener.answers[f"/{number}"] = answer(b"", status=302, Location=f"/{number + 1}")
    listener.answers["/4"] = answer(b"here")
    page, body = await read(local, listener.url("/1"))
    assert (body, page.url) == (b"here", listener.url("/4"))
    with pytest.raises(InvalidInput, match="more than 3 redirects"):
        await read(local, listener.url("/0"))


# --- what is fetched -----------------------------------------------------------------------


async def test_a_page_comes_with_its_name_and_type(local: Web, listener: Listener) -> None:
    listener.answers["/a/report.pdf"] = answer(b"%PDF", Content_Type="application/pdf")
    page, body = await read(local, listener.url("/a/report.pdf?x=1#part"))
    assert (page.filename, page.mime_type, page.size_bytes) == ("report.pdf", "application/pdf", 4)
    assert body == b"%PDF"


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/download", {"Content_Disposition": 'attachment; filename="../x.pdf"'}, "x.pdf"),
        ("/d", {"Content_Disposition": "attachment; filename*=UTF-8''%D0%AF.pdf"}, "Я.pdf"),
        ("/%D0%9C%D0%B0%D1%8F%D0%BA.html", {}, "Маяк.html"),
        ("/", {}, None),
    ],
)
async def test_the_name_is_the_servers_or_that_of_the_path(
    local: Web, listener: Listener, path: str, headers: dict[str, str], name: str | None
) -> None:
    listener.answers[path] = answer(b"x", status=200, **headers)
    page, _ = await read(local, listener.url(path))
    assert page.filename == name


async def test_an_answer_packed_unasked_is_unpacked(local: Web, listener: Listener) -> None:
    content = b"Mayak. " * 200_000
    packed = gzip.compress(content)
    listener.answers["/"] = answer(packed, Content_Encoding="gzip")
    assert (await read(local, listener.url("/")))[1] == content
    assert b"accept-encoding: identity" in listener.requests[0].lower()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(b"x" * 9999)[:-9], "gzip"),
        (gzip.compress(b"x") + b"more", "gzip"),
        (b"no gzip at all", "gzip"),
        (gzip.compress(gzip.compress(b"x")), "gzip, gzip"),
        (b"x", "br"),
    ],
)
async def test_a_wrongly_packed_answer_is_refused(
    local: Web, listener: Listener, packed: bytes, encoding: str
) -> None:
    listener.answers["/"] = answer(packed, Content_Encoding=encoding)
    with pytest.raises(InvalidInput, match="pack"):
        await read(local, listener.url("/"))


@pytest.mark.parametrize("status", [204, 400, 401, 404, 410])
async def test_what_is_no_document_is_the_callers_mistake(
    local: Web, listener: Listener, status: int
) -> None:
    listener.answers["/"] = answer(b"", status=status)
    with pytest.raises(InvalidInput, match=str(status)):
        await read(local, listener.url("/?token=secret"))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_server_that_fails_may_be_tried_again(
    local: Web, listener: Listener, status: int
) -> None:
    listener.answers["/"] = answer(b"", status=status)
    with pytest.raises(SourceUnavailable, match=str(status)) as caught:
        await read(local, listener.url("/?token=secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "broken", [b"", b"nonsense\r\n\r\n", answer(b"x" * 10)[:-3], answer(b"", Content_Length="9")]
)
async def test_a_broken_answer_may_be_tried_again(
    local: Web, listener: Listener, broken: bytes
) -> None:
    listener.answers["/"] = broken
    with pytest.raises(SourceUnavailable):
        await read(local, listener.url("/"))


async def test_a_server_that_is_away_may_be_tried_again(local: Web) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(SourceUnavailable, match="ConnectError"):
            await read(local, f"http://127.0.0.1:{unheard.getsockname()[1]}/")


async def test_the_next_address_is_tried_when_one_is_away(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    listener.answers["/"] = answer(b"hello")
    web = Web(allowed_hosts=["two.example"])
    assert (await read(web, listener.url("/", host="two.example")))[1] == b"hello"
    await web.aclose()


async def test_a_trickle_is_cut_off_by_the_limit_of_the_whole(listener: Listener) -> None:
    listener.answers["/slow"] = answer(b"x" * 100)[:-50]
    web = Web(allowed_hosts=["127.0.0.1"], timeout_seconds=0.3)
    with pytest.raises(SourceUnavailable, match=r"within 0\.3 s"):
        await read(web, listener.url("/slow"))
    await web.aclose()


async def test_a_post_answers_with_the_status_and_follows_nothing(
    local: Web, listener: Listener
) -> None:
    listener.answers["/"] = answer(b"", status=302, Location="/elsewhere")
    status = await local.post(listener.url("/"), content=b"{}", headers={"X-Signature": "s"})
    assert status == 302
    assert b"x-signature: s" in listener.requests[0].lower()
    assert listener.connections == 1


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

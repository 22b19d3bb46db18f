"""Fetching what strangers name: a listener on loopback counts who gets through to it."""

import asyncio
import gzip
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from listening import Listener, answer, resolve_to
from ragcore.adapters.web import Guard, Web, is_public
from ragcore.errors import ForbiddenUrl, InvalidInput, NotConfigured, SourceUnavailable
from ragcore.model import PageMarks
from ragcore.ports import OpenPage


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


async def read(web: Web, url: str, known: PageMarks | None = None) -> tuple[OpenPage, bytes]:
    async with web.get(url, known=known) as page:
        assert page is not None
        return page, b"".join([piece async for piece in page.pieces])


async def is_unchanged(web: Web, url: str, known: PageMarks) -> bool:
    async with web.get(url, known=known) as page:
        return page is None


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
    "127.0.0.1\n",
    "127.0.0.1\r\nX-Injected: yes",
    "",
    ".",
    "127.0.0.1..",
    "127.0.0.1%2e",
    "127.0.0.1%00",
    "%00127.0.0.1",
    "127.0.0.1%20",
    "0127.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "0x7F.1",
    "0x0000000000007f000001",
    "4294967296",
    "6425673729",
    "127.0.0.1.0x0",
    "１２７.１",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "127｡0｡0｡1",
    "ʟocalhost.localhost",
    "localhost%2e",
    "LOCAL\u00adHOST",
    "[::ffff:127.0.0.1%25lo]",
    "[::ffff:0:127.0.0.1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::1]\\@example.com",
    "[fe80::1]",
    "[fd00::1]",
    "[::127.1]",
    "[127.0.0.1]",
    "example.com#@127.0.0.1:80@localhost",
    "localhost\\.example.com",
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
    assert (body, page.marks.url) == (b"here", listener.url("/4"))
    with pytest.raises(InvalidInput, match="more than 3 redirects"):
        await read(local, listener.url("/0"))


# --- what is fetched -----------------------------------------------------------------------


async def test_a_page_comes_with_its_name_and_type(local: Web, listener: Listener) -> None:
    listener.answers["/a/report.pdf"] = answer(b"%PDF", Content_Type="application/pdf")
    page, body = await read(local, listener.url("/a/report.pdf?x=1#part"))
    assert (page.filename, page.marks.mime_type, page.size_bytes) == (
        "report.pdf",
        "application/pdf",
        4,
    )
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


# --- the same page again -------------------------------------------------------------------


def conditional(body: bytes, **marks: str) -> Callable[[bytes], bytes]:
    """Answer 304 to who shows one of the marks."""

    def answers(request: bytes) -> bytes:
        if any(mark.encode() in request for mark in marks.values()):
            return answer(b"", status=304, **marks)
        return answer(body, **marks)

    return answers


@pytest.mark.parametrize(
    "marks",
    [
        {"ETag": '"one"'},
        {"ETag": 'W/"one"', "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ],
)
async def test_a_page_that_is_known_is_not_sent_again(
    local: Web, listener: Listener, marks: dict[str, str]
) -> None:
    listener.answers["/"] = conditional(b"hello", **marks)
    page, body = await read(local, listener.url("/"))
    assert body == b"hello"
    assert await is_unchanged(local, listener.url("/"), page.marks)


async def test_a_page_that_changed_is_sent_with_its_new_marks(
    local: Web, listener: Listener
) -> None:
    listener.answers["/"] = conditional(b"one", ETag='"1"')
    page, _ = await read(local, listener.url("/"))
    listener.answers["/"] = conditional(b"two", ETag='"2"')
    page, body = await read(local, listener.url("/"), page.marks)
    assert (body, page.marks.etag) == (b"two", '"2"')


async def test_marks_are_shown_to_nobody_but_the_server_they_came_from(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    web = Web(allowed_hosts=["one.example", "two.example"])
    second = listener.url("/page", host="two.example")
    listener.answers["/"] = answer(b"", status=302, Location=second)
    listener.answers["/page"] = conditional(b"hello", ETag='"one"')
    page, _ = await read(web, listener.url("/", host="one.example"))
    assert page.marks.uri == listener.url("/", host="one.example")
    listener.requests.clear()
    assert await is_unchanged(web, page.marks.uri, page.marks)
    first, then = listener.requests
    assert b"one.example" in first and b"if-none-match" not in first.lower()
    assert b"two.example" in then and b'if-none-match: "one"' in then.lower()
    elsewhere = replace(page.marks, url=listener.url("/page", host="three.example"))
    assert (await read(web, page.marks.uri, elsewhere))[1] == b"hello"
    await web.aclose()


async def test_a_server_that_says_unchanged_unasked_is_not_believed(
    local: Web, listener: Listener
) -> None:
    listener.answers["/"] = answer(b"", status=304)
    with pytest.raises(InvalidInput, match="304"):
        await read(local, listener.url("/"))


@pytest.mark.parametrize("mark", ["x" * 1001, "\x07", "Маяк", " "])
async def test_marks_that_can_not_be_sent_back_are_dropped(
    local: Web, listener: Listener, mark: str
) -> None:
    listener.answers["/"] = answer(b"hello", ETag=mark, Content_Type="text/plain")
    try:
        page, _ = await read(local, listener.url("/"))
    except SourceUnavailable:
        return  # refused as a whole: no HTTP
    assert page.marks.etag is None


async def test_no_cookie_of_a_server_comes_back_to_it(local: Web, listener: Listener) -> None:
    listener.answers["/"] = answer(b"", status=302, Location="/a", Set_Cookie="who=me; Path=/")
    listener.answers["/a"] = answer(b"hello", Set_Cookie="who=me; Path=/")
    await read(local, listener.url("/"))
    await read(local, listener.url("/a"))
    assert not [request for request in listener.requests if b"cookie" in request.lower()]


# --- redirects that lead astray ------------------------------------------------------------

TARGETS = [
    "http://localhost:{port}/secret",
    "http://LOCALHOST.:{port}/secret",
    "http://127.1:{port}/secret",
    "http://2130706433:{port}/secret",
    "http://0x7f000001:{port}/secret",
    "http://0177.0.0.1:{port}/secret",
    "http://0:{port}/secret",
    "http://0.0.0.0:{port}/secret",
    "http://[::1]:{port}/secret",
    "http://[::]:{port}/secret",
    "http://[::ffff:127.0.0.1]:{port}/secret",
    "http://[64:ff9b::7f00:1]:{port}/secret",
    "http://[2002:7f00:1::]:{port}/secret",
    "http://[::1%25lo]:{port}/secret",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/secret",
    "http://１２７.０.０.１.:{port}/secret",
    "http://%6c%6f%63%61%6c%68%6f%73%74:{port}/secret",
    "hTTp://localhost:{port}/secret",
    "//localhost:{port}/secret",
    "///localhost:{port}/secret",
    "////localhost:{port}/secret",
    "/\\localhost:{port}/secret",
    "\\\\localhost:{port}/secret",
    "http:\\\\localhost:{port}/secret",
    "http:///localhost:{port}/secret",
    "http:/localhost:{port}/secret",
    "http:localhost:{port}/secret",
    "//user:password@localhost:{port}/secret",
    "http://user@127.0.0.1:{port}/secret",
    "http://127.0.0.1:{port}@localhost:{port}/secret",
    "http://127.0.0.1:{port}#@localhost:{port}/",
    "\thttp://localhost:{port}/secret",
    "http://local\thost:{port}/secret",
    "https://localhost:{port}/secret",
    "ftp://localhost:{port}/secret",
    "ws://localhost:{port}/secret",
    "file:///etc/passwd",
    "gopher://localhost:{port}/_GET%20/secret",
    "data:text/plain,secret",
    "javascript:fetch('http://localhost:{port}/secret')",
    "dict://localhost:{port}/secret",
    "http://",
    "http://:{port}/secret",
    "http://[::1:{port}/secret",
    "http://localhost:99999/secret",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("hops", [1, 3])
async def test_no_redirect_leads_to_where_one_must_not_go(
    local: Web, listener: Listener, target: str, hops: int
) -> None:
    """127.0.0.1 is allowed, by that name; the last of some hops leads elsewhere."""
    for number in range(1, hops):
        listener.answers[f"/{number}"] = answer(b"", status=302, Location=f"/{number + 1}")
    location = target.format(port=listener.port)
    listener.answers[f"/{hops}"] = answer(b"", status=307, Location=location)
    listener.answers["/secret"] = answer(b"secret")
    with pytest.raises((ForbiddenUrl, InvalidInput, SourceUnavailable)):
        await read(local, listener.url("/1"))
    assert "/secret" not in listener.paths()
    assert not [request for request in listener.requests if b"\nHost: localhost" in request]


async def test_a_loop_of_redirects_ends(local: Web, listener: Listener) -> None:
    listener.answers["/a"] = answer(b"", status=302, Location="/b")
    listener.answers["/b"] = answer(b"", status=302, Location="/a")
    with pytest.raises(InvalidInput, match="more than 3 redirects"):
        await read(local, listener.url("/a"))
    assert listener.connections == 4


async def test_what_else_may_lead_on_is_not_followed(local: Web, listener: Listener) -> None:
    """`Refresh`, `Link`, a refresh in the page, and a `Location` beside a good answer."""
    there = listener.url("/secret")
    body = f'<meta http-equiv="refresh" content="0; url={there}">'.encode()
    listener.answers["/"] = answer(
        body, Refresh=f"0; url={there}", Link=f"<{there}>; rel=canonical", Location=there
    )
    assert (await read(local, listener.url("/")))[1] == body
    assert listener.paths() == ["/"]


async def test_each_hop_is_resolved_and_checked_anew(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    """The name of the first hop is that of the second, with another address by then."""
    addresses = iter(["127.0.0.1", "127.0.0.1", "10.0.0.7"])
    real = asyncio.BaseEventLoop.getaddrinfo

    async def rebinding(self: Any, host: str, port: int, **options: Any) -> Any:
        if host.endswith(".example"):
            return [(2, 1, 6, "", (next(addresses), port))]
        return await real(self, host, port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", rebinding)
    monkeypatch.setattr(
        "ragcore.adapters.web.is_public", lambda address: str(address) == "127.0.0.1"
    )
    listener.answers["/"] = answer(b"", status=302, Location="/again")
    listener.answers["/again"] = answer(b"", status=302, Location="/secret")
    web = Web()
    with pytest.raises(ForbiddenUrl, match=r"10\.0\.0\.7"):
        await read(web, listener.url("/", host="rebind.example"))
    await web.aclose()
    assert listener.paths() == ["/", "/again"]


# --- slow and endless answers --------------------------------------------------------------


async def test_a_server_that_never_ends_its_headers_is_left(listener: Listener) -> None:
    listener.answers["/slow"] = b"HTTP/1.1 200 OK\r\nX-Slow: "
    web = Web(allowed_hosts=["127.0.0.1"], timeout_seconds=0.3)
    with pytest.raises(SourceUnavailable, match=r"within 0\.3 s"):
        await read(web, listener.url("/slow"))
    await web.aclose()


async def test_headers_without_end_are_not_read_to_it(local: Web, listener: Listener) -> None:
    listener.answers["/"] = b"HTTP/1.1 200 OK\r\n" + b"X-Long: yes\r\n" * 100_000
    with pytest.raises(SourceUnavailable):
        await read(local, listener.url("/"))


async def test_a_bomb_comes_in_pieces_and_may_be_left_at_any(
    local: Web, listener: Listener
) -> None:
    listener.answers["/"] = answer(gzip.compress(bytes(64 * 2**20)), Content_Encoding="gzip")
    async with local.get(listener.url("/")) as page:
        assert page is not None
        sizes = [len(piece) async for piece in page.pieces]
    assert sum(sizes) == 64 * 2**20
    assert max(sizes) <= 256 * 1024


# --- TLS -----------------------------------------------------------------------------------


class Authority:
    """Signs certificates that only those trust who are told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's authority")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            self._begun(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str) -> ssl.SSLContext:
        """Return what a server needs to prove that it is `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._begun(subject, key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        file = self._directory / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> Any:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_server_called_by_its_address_must_prove_its_name(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    web = Web(allowed_hosts=["named.example", "other.example"], ca_file=authority.file)
    tls = authority.server("named.example")
    asked_for: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked_for.append(name)
    async with Listener().listening(tls) as secure:
        secure.answers["/"] = answer(b"hello")
        named = secure.url("/", host="named.example", scheme="https")
        assert (await read(web, named))[1] == b"hello"
        other = secure.url("/", host="other.example", scheme="https")
        with pytest.raises(SourceUnavailable, match="certificate"):
            await read(web, other)
        assert len(secure.requests) == 1
    await web.aclose()
    assert asked_for == ["named.example", "other.example"]


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    web = Web(allowed_hosts=["named.example"])
    async with Listener().listening(authority.server("named.example")) as secure:
        secure.answers["/"] = answer(b"hello")
        with pytest.raises(SourceUnavailable, match="certificate"):
            await read(web, secure.url("/", host="named.example", scheme="https"))
        assert not secure.requests
    await web.aclose()


def test_a_file_that_holds_no_certificates_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(NotConfigured, match=name):
            Web(ca_file=tmp_path / name)

"""Several scripted Ollamas as one, over real connections."""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import ollama
import pytest

from fakes.ollama import Chat, FakeModel, FakeOllama, Reply
from ragcore.adapters.models.ollama import OllamaEmbedder
from ragcore.adapters.models.ollama_servers import OllamaServers
from ragcore.errors import (
    ModelMissing,
    ModelOutOfMemory,
    ModelTimeout,
    ModelUnavailable,
    NotConfigured,
    RagError,
)
from ragcore.ports import ModelCallEnd, _Unmetered

EMBEDDING = "nomic-embed-text-v2-moe"
CHAT = "llama3.2"
CRASH = "llama runner process has terminated"


class Counting(_Unmetered):
    """A meter that remembers."""

    def __init__(self) -> None:
        self.asked: Counter[ModelCallEnd] = Counter()
        self.used: list[bool] = []

    def model_asked(self, endpoint: str, end: ModelCallEnd) -> None:
        self.asked[end] += 1

    def endpoint_changed(self, endpoint: str, *, is_used: bool) -> None:
        self.used.append(is_used)


def models(digest: str = "a" * 64) -> list[FakeModel]:
    return [
        FakeModel(f"{EMBEDDING}:latest", digest=digest),
        FakeModel(f"{CHAT}:latest", architecture="llama", capabilities=["completion"]),
    ]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[FakeOllama, FakeOllama]]:
    with FakeOllama(*models()) as one, FakeOllama(*models()) as other:
        yield one, other


@pytest.fixture
def one(both: tuple[FakeOllama, FakeOllama]) -> FakeOllama:
    both[0].models[:] = models()
    both[0].forget()
    return both[0]


@pytest.fixture
def other(both: tuple[FakeOllama, FakeOllama]) -> FakeOllama:
    both[1].models[:] = models()
    both[1].forget()
    return both[1]


@asynccontextmanager
async def opened(*fakes: FakeOllama | str, **options: Any) -> AsyncIterator[OllamaServers]:
    urls = [fake if isinstance(fake, str) else fake.url for fake in fakes]
    servers = OllamaServers(urls, **options)
    try:
        yield servers
    finally:
        await servers.aclose()


async def embed(servers: OllamaServers, *, seconds: float = 20) -> None:
    client = servers.client(is_question=True, timeout_seconds=seconds)
    await client.embed(model=EMBEDDING, input="text")


async def chat(servers: OllamaServers, *, seconds: float = 20) -> str:
    client = servers.client(is_question=True, timeout_seconds=seconds)
    asked = [{"role": "user", "content": "question"}]
    words = ""
    async for part in await client.chat(model=CHAT, messages=asked, stream=True):
        words += part.message.content or ""
    return words


# --- one address ---------------------------------------------------------------------------


async def test_trouble_that_passes_is_not_seen(one: FakeOllama) -> None:
    meter = Counting()
    async with opened(one, meter=meter) as servers:
        one.fail(500, CRASH)
        one.reset()
        await embed(servers)
        one.chats.append("It leaves at 7.")
        one.fail(503, "server busy, please try again.  maximum pending requests exceeded")
        one.reset()
        assert await chat(servers) == "It leaves at 7."
    assert meter.asked == {"ok": 2, "failed": 2, "reset": 2}


async def test_half_an_embedding_is_asked_for_again(one: FakeOllama) -> None:
    async with opened(one) as servers:
        one.faults["truncated"] = 1.0
        with pytest.raises(ModelUnavailable, match="broke off"):
            await embed(servers)
        assert one.counts["truncated"] == 3
        one.faults.clear()
        await embed(servers)


async def test_a_chat_that_broke_after_its_first_words_is_not_begun_anew(one: FakeOllama) -> None:
    async with opened(one) as servers:
        one.chats.append(Chat("It leaves at 7.", ends="cut"))
        with pytest.raises(ModelUnavailable, match="broke off"):
            await chat(servers)
    assert len(one.asked) == 1


async def test_an_error_in_place_of_the_first_words_is_tried_again(one: FakeOllama) -> None:
    async with opened(one) as servers:
        one.chats += [Chat("", ends="error"), "It leaves at 7."]
        assert await chat(servers) == "It leaves at 7."


async def test_what_took_too_long_is_not_tried_again(one: FakeOllama) -> None:
    meter = Counting()
    async with opened(one, meter=meter) as servers:
        one.hang(0.5)
        with pytest.raises(ModelTimeout):
            await embed(servers, seconds=0.1)
    assert meter.asked == {"timeout": 1}


async def test_too_little_memory_is_told_and_not_tried_again(one: FakeOllama) -> None:
    async with opened(one) as servers:
        one.fail(500, "model requires more system memory (5.6 GiB) than is available (3.1 GiB)")
        with pytest.raises(ModelOutOfMemory, match=r"3\.1 GiB") as told:
            await embed(servers)
    assert (told.value.code, told.value.retryable) == ("model_out_of_memory", True)
    assert len(one.embedded) == 1


async def test_a_server_that_fails_again_and_again_is_left_alone(
    one: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Counting()
    options: dict[str, Any] = {"attempts": 1, "failures": 2, "pause_seconds": 0.05}
    async with opened(one, meter=meter, **options) as servers:
        one.fail(500, CRASH, times=2)
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=CRASH):
                await embed(servers)
        asked = len(one.embedded)
        with pytest.raises(ModelUnavailable, match="is asked again in") as refused:
            await embed(servers)
        assert refused.value.retry_after_seconds == 1.0
        assert len(one.embedded) == asked  # it failed at once
        await asyncio.sleep(servers.endpoints[0].breaker.retry_after_seconds)
        await embed(servers)
        await embed(servers)
    assert meter.used == [True, False, True]
    assert [r.levelno for r in caplog.records if "left out" in r.message] == [logging.WARNING]


async def test_a_text_at_fault_is_no_failure_of_the_server(one: FakeOllama) -> None:
    async with opened(one, attempts=1, failures=1) as servers:
        one.fail(500, "failed to encode response: json: unsupported value: NaN", times=3)
        for _ in range(3):
            with pytest.raises(RagError, match="refused the text"):
                await embed(servers)
        await embed(servers)


async def test_a_reader_who_leaves_gives_the_turn_back(one: FakeOllama) -> None:
    async with opened(one, concurrency=1, wait_seconds=0.2) as servers:
        one.chats += [Chat("It leaves", ends="never")] * 4
        for _ in range(4):  # two at a time may ask: questions have one turn more
            one.is_waiting.clear()
            one.hung_up.clear()
            asking = asyncio.create_task(chat(servers))
            await asyncio.to_thread(one.is_waiting.wait)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.to_thread(one.hung_up.wait)


async def test_an_address_that_is_none_is_refused(one: FakeOllama) -> None:
    for url in ("ollama:11434", "http://", "ftp://host"):
        with pytest.raises(NotConfigured, match="RAGCORE_OLLAMA__URL"):
            OllamaServers([url])


# --- several addresses ---------------------------------------------------------------------


async def test_requests_go_where_the_fewest_are_in_flight(
    one: FakeOllama, other: FakeOllama
) -> None:
    async with opened(one, other) as servers:
        one.chats.append(Chat("It leaves", ends="never"))
        other.chats.append(Chat("It leaves", ends="never"))
        asking = [asyncio.create_task(chat(servers)) for _ in range(2)]
        await asyncio.to_thread(one.is_waiting.wait)
        await asyncio.to_thread(other.is_waiting.wait)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert (len(one.asked), len(other.asked)) == (1, 1)


async def test_an_address_that_is_away_costs_no_answer_and_is_then_left_out(
    one: FakeOllama, unused_tcp_port: int
) -> None:
    meter = Counting()
    away = f"http://127.0.0.1:{unused_tcp_port}"
    async with opened(away, one, attempts=2, failures=1, meter=meter) as servers:
        while not meter.asked["reset"]:  # until chance leads there
            await embed(servers)
        for _ in range(10):
            await embed(servers)
    assert meter.asked["reset"] == 1


async def test_an_address_that_is_back_is_used_again(one: FakeOllama, other: FakeOllama) -> None:
    async with opened(one, other, attempts=2, failures=1, pause_seconds=0.05) as servers:
        other.faults["reset"] = 1.0
        while not other.counts["reset"]:  # until chance leads there
            await embed(servers)
        other.faults.clear()
        await asyncio.sleep(servers.endpoints[1].breaker.retry_after_seconds)
        while not other.counts["served"]:
            await embed(servers)


async def test_a_password_in_an_address_is_sent_and_not_shown(one: FakeOllama) -> None:
    url = one.url.replace("http://", "http://anna:secret@")
    async with opened(url) as servers:
        await embed(servers)
        one.fail(401, "unauthorized", times=9)
        with pytest.raises(ModelUnavailable, match="check user and password") as refused:
            await embed(servers)
        assert "secret" not in str(refused.value)
        assert "secret" not in str(servers.client(is_question=True, timeout_seconds=1)._client)
    assert one.authorizations[0] == "Basic YW5uYTpzZWNyZXQ="


async def test_an_address_that_lacks_the_model_is_not_used_for_it(
    one: FakeOllama, other: FakeOllama
) -> None:
    other.models[:] = [model for model in models() if CHAT not in model.name]
    async with opened(one, other) as servers:
        for n in range(12):
            one.chats.append(f"Answer {n}")
            assert await chat(servers) == f"Answer {n}"
        assert len(other.asked) <= 1
        one.models[:] = []
        with pytest.raises(ModelMissing, match=r"ragcore models pull llama3\.2") as missing:
            await chat(servers)
        assert missing.value.model == CHAT
        one.models[:] = models()  # pulled: it is used at once
        one.chats.append("Again")
        assert await chat(servers) == "Again"


async def test_another_model_of_the_same_name_is_not_used_for_vectors(
    one: FakeOllama, other: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(one) as servers:
        digest = (await OllamaEmbedder.open(servers)).spec.digest
    other.models[:] = models(digest="b" * 64)
    one.requests.clear()
    async with opened(one, other) as servers:
        assert digest is not None
        servers.pin(EMBEDDING, digest)
        for _ in range(12):
            await embed(servers)
    assert len(one.embedded) == 12
    assert other.embedded == []
    assert "another 'nomic-embed-text-v2-moe'" in caplog.text


async def test_connections_do_not_stay_with_one_of_several_servers_behind_a_name(
    one: FakeOllama, other: FakeOllama
) -> None:
    async with dealt_out(one, other) as url, opened(url) as servers:
        for _ in range(200):
            await embed(servers)
            if one.embedded and other.embedded:
                return
    pytest.fail("every request went over one connection, and so to one server")


@asynccontextmanager
async def dealt_out(*fakes: FakeOllama) -> AsyncIterator[str]:
    """Serve an address behind which connections are dealt out to servers in turn."""
    turn = itertools.cycle(fakes)
    tasks: set[asyncio.Task[None] | None] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        port = int(next(turn).url.rpartition(":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*(task for task in tasks if task is not None))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


# --- how much at once ----------------------------------------------------------------------


async def test_no_more_than_the_limit_is_asked_at_once(one: FakeOllama) -> None:
    async with opened(one, concurrency=2) as servers:
        client = servers.client(is_question=False, timeout_seconds=20)
        await asyncio.gather(*(client.embed(model=EMBEDDING, input=f"text {n}") for n in range(10)))
    assert one.most_at_once == 2


async def test_failures_reduce_what_is_asked_at_once(one: FakeOllama) -> None:
    async with opened(one, concurrency=4, attempts=1) as servers:
        one.failures.extend([Reply(503, {"error": "server busy"})] * 2)
        client = servers.client(is_question=False, timeout_seconds=20)
        for _ in range(2):
            with pytest.raises(ModelUnavailable):
                await client.embed(model=EMBEDDING, input="text")
        one.most_at_once = 0
        await asyncio.gather(*(client.embed(model=EMBEDDING, input=f"{n}") for n in range(3)))
    assert one.most_at_once <= 2


async def test_clients_of_ollama_see_its_own_types(one: FakeOllama) -> None:
    async with opened(one) as servers:
        client = servers.client(is_question=True, timeout_seconds=20)
        assert isinstance(await client.list(), ollama.ListResponse)
        one.chats.append("Yes.")
        answer = await client.generate(model=CHAT, prompt="Well?")
        assert answer.response == "Yes."

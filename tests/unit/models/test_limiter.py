"""Slots for requests to a remote model."""

import asyncio

import pytest

from ragcore.adapters.models.limiter import RequestLimiter
from ragcore.errors import ModelUnavailable, Rejected


class Request:
    """One request that holds its slot until it is told how it ended."""

    def __init__(self, limiter: RequestLimiter, *, is_question: bool = False) -> None:
        self._limiter = limiter
        self._is_question = is_question
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_started = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._limiter.slot(is_question=self._is_question):
            self.has_started = True
            await self._outcome

    async def end(self, error: Exception | None = None) -> None:
        if error is None:
            self._outcome.set_result(None)
            await self.task
        else:
            self._outcome.set_exception(error)
            with pytest.raises(type(error)):
                await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_documents_wait_for_a_free_slot() -> None:
    limiter = RequestLimiter(2)
    requests = [Request(limiter) for _ in range(3)]
    await settle()
    assert [request.has_started for request in requests] == [True, True, False]
    await requests[0].end()
    await settle()
    assert requests[2].has_started
    for request in requests[1:]:
        await request.end()


async def test_a_question_waits_for_no_document() -> None:
    limiter = RequestLimiter(1)
    documents = [Request(limiter) for _ in range(2)]
    question = Request(limiter, is_question=True)
    await settle()
    assert question.has_started
    assert not documents[1].has_started
    for request in (question, *documents):
        await request.end()


async def test_waiting_questions_go_before_waiting_documents() -> None:
    limiter = RequestLimiter(1)
    running = [Request(limiter), Request(limiter, is_question=True)]
    document = Request(limiter)
    question = Request(limiter, is_question=True)
    await settle()
    await running[1].end()
    await settle()
    assert (question.has_started, document.has_started) == (True, False)
    for request in (running[0], question, document):
        await request.end()


async def test_failures_take_slots_away_and_answers_bring_them_back() -> None:
    limiter = RequestLimiter(4)
    for _ in range(3):
        request = Request(limiter)
        await settle()
        await request.end(ModelUnavailable("away"))
    assert limiter.limit == 1
    for _ in range(20):
        request = Request(limiter)
        await settle()
        await request.end()
    assert limiter.limit == 4


async def test_a_refused_text_says_nothing_about_the_server() -> None:
    limiter = RequestLimiter(4)
    request = Request(limiter)
    await settle()
    await request.end(Rejected("too long"))
    assert limiter.limit == 4


async def test_who_is_cancelled_while_waiting_leaves_no_gap() -> None:
    limiter = RequestLimiter(1)
    first, second, third = (Request(limiter) for _ in range(3))
    await settle()
    second.task.cancel()
    await settle()
    await first.end()
    await settle()
    assert third.has_started
    await third.end()


async def test_who_is_cancelled_when_its_turn_comes_gives_it_away() -> None:
    limiter = RequestLimiter(1)
    async with limiter.slot(is_question=False):
        second, third = Request(limiter), Request(limiter)
        await settle()
    second.task.cancel()  # it was given the slot just now, and has not run since
    await settle()
    assert (second.has_started, third.has_started) == (False, True)
    await third.end()

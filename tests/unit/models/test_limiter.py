import asyncio
from collections.abc import Callable

import pytest

from ragcore.adapters.models.limiter import RequestLimiter, Turns
from ragcore.errors import ModelUnavailable


async def settled() -> None:
    """Let every task run as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_question_has_a_slot_that_documents_may_not_use() -> None:
    limiter = RequestLimiter(2)
    for _ in range(2):
        await limiter.acquire(is_question=False)
    document = asyncio.create_task(limiter.acquire(is_question=False))
    await limiter.acquire(is_question=True)
    await settled()
    assert not document.done()
    limiter.release(failed=False)  # three of two were held: the document still waits
    await settled()
    assert not document.done()
    limiter.release(failed=False)
    await document


async def test_questions_go_before_documents_that_came_first() -> None:
    limiter = RequestLimiter(1)
    await limiter.acquire(is_question=False)
    await limiter.acquire(is_question=True)
    order: list[str] = []

    async def wait(name: str, *, is_question: bool) -> None:
        await limiter.acquire(is_question=is_question)
        order.append(name)
        limiter.release(failed=None)

    waiting = [
        asyncio.create_task(wait("document", is_question=False)),
        asyncio.create_task(wait("question", is_question=True)),
    ]
    await settled()
    limiter.release(failed=None)
    limiter.release(failed=None)
    await asyncio.gather(*waiting)
    assert order == ["question", "document"]


async def test_failures_halve_the_slots_and_answers_bring_them_back() -> None:
    limiter = RequestLimiter(8)
    for _ in range(2):
        await limiter.acquire(is_question=False)
        limiter.release(failed=True)
    assert limiter.limit == 2
    await limiter.acquire(is_question=False)
    limiter.release(failed=None)
    assert limiter.limit == 2
    for _ in range(100):
        await limiter.acquire(is_question=False)
        limiter.release(failed=False)
    assert limiter.limit == 8


async def test_who_gives_up_waiting_takes_no_slot_along() -> None:
    limiter = RequestLimiter(1)
    await limiter.acquire(is_question=False)
    waiting = asyncio.create_task(limiter.acquire(is_question=False))
    await settled()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    granted = asyncio.create_task(limiter.acquire(is_question=False))
    await settled()
    limiter.release(failed=None)
    granted.cancel()  # in the moment in which the slot was granted
    await asyncio.gather(granted, return_exceptions=True)
    await limiter.acquire(is_question=False)


class Full:
    """Shared slots of which none is ever free."""

    async def acquire(self, resource: str, *, most: int, is_question: bool) -> Callable[[], None]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_question_that_waits_too_long_for_others_is_told_so() -> None:
    turns = Turns(most=1, patience_seconds=0.01, shared=Full())
    for _ in range(3):  # the slot of this process is given back each time
        with pytest.raises(ModelUnavailable, match="busy with others") as refused:
            await turns.take("llama3.2", most=1, is_question=True)
        assert refused.value.retry_after_seconds == 5


async def test_models_do_not_wait_for_one_another() -> None:
    turns = Turns(most=1, patience_seconds=10)
    await turns.take("llama3.2", most=1, is_question=False)
    turn = await turns.take("bge-m3", most=1, is_question=False)
    turn.end(failed=False)
    turn.end(failed=False)  # only the first counts
    await turns.take("bge-m3", most=1, is_question=False)

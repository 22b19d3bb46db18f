"""What a chat completion says of an answer, whole and in pieces."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Request

from ragcore.errors import ModelUnavailable
from ragcore.model import Answer, AnswerEvent, AnswerPassages, AnswerText, Passage, Place
from ragcore.steps.citing import check_citations
from ragcore_api.chat import Chat, ChatStream, open_webui_sources, sources_of, without_sources
from ragcore_api.streams import told

PASSAGES = tuple(
    Passage(
        f"c{number}", f"d{number}", "default", 0, f"Number {number} is here.",
        title=title, places=(Place(page=page),),
    )
    for number, title, page in ((1, "Winter\n timetable", 3), (2, None, 4), (3, "Winter", 5))
)  # fmt: skip
REQUEST = Request(
    {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [],
     "server": ("test", 80), "scheme": "http", "query_string": b"", "state": {}}
)  # fmt: skip


def answer_of(text: str) -> Answer:
    checked = check_citations(text, PASSAGES)
    return Answer(checked.text, checked.citations, PASSAGES)


def pieces_of(events: list[AnswerEvent]) -> list[Any]:
    stream = ChatStream(
        Chat.about("Where?", model="ragcore/default"), includes_usage=False, is_open_webui=False
    )
    *lines, done = [line.data for event in events for line in stream.tell(event)]
    assert done == "[DONE]"
    return [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines]


def test_each_marker_has_one_line_in_order_of_the_markers() -> None:
    answer = answer_of("Number 3 is here [3]. Number 1 is here [1]. Number 3 is here [3].")
    assert sources_of(answer, language="en") == (
        "\n\nSources:\n- [1] Winter timetable, p. 3\n- [3] Winter, p. 5"
    )
    assert sources_of(answer_of("Nothing is known."), language="en") == ""


def test_the_list_of_sources_can_be_taken_off_again() -> None:
    answer = answer_of("Number 3 is here [3].")
    for language in ("en", "ru"):
        assert without_sources(answer.text + sources_of(answer, language=language)) == answer.text
    assert without_sources("Sources:\n\nthe sea") == "Sources:\n\nthe sea"


def test_the_nth_source_of_open_webui_is_what_marker_n_stands_for() -> None:
    sources = list(open_webui_sources(answer_of("Number 3 is here [3]."), language="ru"))
    names = [source["source"]["name"] for source in sources]
    assert names == ["1. Winter timetable, с. 3", "2. d2, с. 4", "3. Winter, с. 5"]
    assert [source["metadata"][0]["page"] for source in sources] == [2, 3, 4]
    assert sources[2]["document"] == ["Number 3 is here."]


def test_the_pieces_are_the_answer_and_its_sources() -> None:
    answer = answer_of("Number 1 is here [1].")
    told_of = [AnswerPassages(PASSAGES), AnswerText("Number 1 "), AnswerText("is here [1].")]
    assert "".join(pieces_of([*told_of, answer])) == answer.text + sources_of(answer, language="en")


def test_an_answer_that_took_the_place_of_another_follows_it() -> None:
    answer = answer_of("Number 1 is here [1].")
    told_of = [AnswerPassages(PASSAGES), AnswerText("Number o"), answer]
    assert "".join(pieces_of(told_of)).startswith("Number o\n\nNumber 1 is here [1].\n\nSources:")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModelUnavailable("the model is away"), "model_unavailable", "the model is away"),
        (ZeroDivisionError("secret"), "internal", "internal error"),
    ],
)
async def test_a_failure_on_the_way_is_the_last_line(
    error: Exception, code: str, message: str
) -> None:
    async def failing() -> AsyncGenerator[AnswerEvent, None]:
        yield AnswerText("The last ")
        raise error

    stream = ChatStream(Chat("ragcore/default", "en"), includes_usage=True, is_open_webui=False)
    sent = told(AnswerPassages(()), failing(), REQUEST, tell=stream.tell, fail=stream.fail)
    *_, last = [json.loads(line.data) async for line in sent]
    assert (last["error"]["code"], last["error"]["type"]) == (code, "server_error")
    assert last["error"]["message"].startswith(message)

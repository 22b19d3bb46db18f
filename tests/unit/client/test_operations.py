"""Operations as steps: what they ask for, and what they make of the answers."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ragcore.client import AnswerCitations, ConvertedChunk, ObjectResult, Retries
from ragcore.client.exchange import Request, Response
from ragcore.client.operations import Operations
from ragcore.errors import (
    InvalidInput,
    JobNotFound,
    ModelUnavailable,
    RagError,
    StoreUnavailable,
    Unavailable,
)
from ragcore.model import Answer, AnswerPassages, AnswerText, Job, Message, Place
from scripted import BROKEN, REFUSED, Script, answered, body_of, problem, sent_json

JOB_ID = UUID("0b9a7d6c-3a51-4c0e-9a44-6a9f3a5d2c11")
QUEUED = {
    "job_id": str(JOB_ID),
    "collection": "default",
    "document_id": "a",
    "status": "queued",
    "stage": None,
    "created_at": "2026-01-12T09:30:00Z",
    "warnings": [],
    "status_url": f"/jobs/{JOB_ID}",
    "of_next_year": {"x": 1},
}
DONE = QUEUED | {"status": "succeeded", "outcome": "created", "chunks": 3, "timings_ms": {"a": 1.5}}
PASSAGE = {
    "chunk_id": "c1",
    "document_id": "a",
    "collection": "default",
    "text": "The ferry leaves at noon.",
    "score": 0.8,
    "headings": ["Departures"],
    "page": 3,
    "bbox": [1.0, 2.0, 3.0, 4.0],
    "metadata": {"year": 2026},
    "explanation": {"cosine": 0.9, "matched": ["ferry"], "of_next_year": 1},
}
CITATION = {
    "marker": 1,
    "chunk_id": "c1",
    "document_id": "a",
    "collection": "default",
    "quote": "noon",
    "start": 20,
    "end": 24,
    "score": 0.8,
    "supported": True,
    "bbox": [1.0, 2.0, 3.0, 4.0],
}
ANSWER = {
    "answer": "At noon. [1]",
    "citations": [CITATION],
    "passages": [PASSAGE],
    "generator": "extractive",
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    "warnings": ["w"],
}


class Clock:
    """Stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rag(clock: Clock) -> Operations:
    steady = Retries(attempts=3, first_seconds=1.0, jitter=lambda: 0.0)
    return Operations(retries=steady, timeout_seconds=60, clock=clock)


def events(*told: tuple[str, Any]) -> bytes:
    return "".join(
        f"event: {name}\r\ndata: {json.dumps(data)}\r\n\r\n" for name, data in told
    ).encode()


STREAM = Response(200, {"content-type": "text/event-stream"})


# --- documents in ------------------------------------------------------------------------------


def test_an_upload_is_sent_again_under_the_same_key_from_its_beginning(
    rag: Operations, tmp_path: Path
) -> None:
    (path := tmp_path / "notes.md").write_bytes(b"# Notes")
    script = Script([BROKEN, answered({"jobs": [QUEUED]}, 202)])
    job = script.run(Operations.ingest(rag, path, metadata={"year": 2026}))
    assert (job.job_id, job.status) == (JOB_ID, "queued")
    first, second = script.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert body_of(first) == body_of(second)
    assert b'{"year": 2026}' in body_of(first)


def test_two_uploads_have_two_keys_unless_the_caller_names_one(rag: Operations) -> None:
    def key(**options: Any) -> str:
        script = Script([answered({"jobs": [QUEUED]}, 202)])
        script.run(Operations.ingest(rag, b"x", **options))
        return script.requests[0].headers["Idempotency-Key"]

    assert key() != key()
    assert key(idempotency_key="mine") == "mine"


def test_a_url_is_for_the_service_to_fetch_and_a_text_is_sent_as_it_is(rag: Operations) -> None:
    script = Script([answered({"jobs": [QUEUED]}, 202)])
    script.run(Operations.ingest(rag, "https://example.org/a.pdf", collection="reports"))
    assert sent_json(script.requests[0]) == {
        "url": "https://example.org/a.pdf",
        "collection": "reports",
    }
    script = Script([answered({"jobs": [QUEUED]}, 202)])
    last_day = datetime(2027, 1, 1, tzinfo=UTC)
    script.run(Operations.ingest_text(rag, "Паром", filename="a.md", expires_at=last_day))
    told = sent_json(script.requests[0])
    assert datetime.fromisoformat(told.pop("expires_at")) == last_day
    assert told == {"text": "Паром", "filename": "a.md"}


def test_a_bucket_is_asked_for_in_the_words_of_the_service(rag: Operations) -> None:
    script = Script([answered(QUEUED | {"kind": "bucket", "counts": {"new": 2}}, 202)])
    job = script.run(Operations.ingest_bucket(rag, "reports", "2024/", include=["*.pdf"]))
    assert (job.kind, job.counts) == ("bucket", {"new": 2})
    assert sent_json(script.requests[0]) == {
        "bucket": "reports",
        "prefix": "2024/",
        "include": ["*.pdf"],
        "exclude": [],
        "delete_missing": False,
        "dry_run": False,
    }
    told = {"key": "a.pdf", "action": "new", "job_id": str(JOB_ID), "error": None}
    script = Script([answered({"objects": [told], "next_cursor": None})])
    script.run(Operations.job_objects(rag, JOB_ID))
    assert script.items == [ObjectResult("a.pdf", "new", job_id=JOB_ID)]


def test_a_file_that_is_not_there_is_no_request(rag: Operations, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Script([]).run(Operations.ingest(rag, tmp_path / "gone.pdf"))


def test_a_conversion_is_a_text_an_object_or_chunks(rag: Operations) -> None:
    def converted(content: Any) -> Any:
        told = {"format": "markdown", "mime_type": "text/plain", "content": content}
        return Script([answered(told)]).run(Operations.convert(rag, b"x")).content

    assert converted("# A") == "# A"
    assert converted({"name": "a"}) == {"name": "a"}
    assert converted([{"ordinal": 0, "text": "x"}]) == (ConvertedChunk(0, "x"),)


# --- jobs --------------------------------------------------------------------------------------


def test_waiting_outlasts_a_service_that_is_away(rag: Operations) -> None:
    script = Script([answered(QUEUED), BROKEN, *[REFUSED] * 40, answered(DONE)])
    job = script.run(Operations.wait(rag, JOB_ID))
    assert (job.status, job.chunks, job.timings_ms) == ("succeeded", 3, {"a": 1.5})
    assert {each.query["wait"] for each in script.requests} == {"30.000"}
    assert {each.answer_seconds for each in script.requests} == {90}


def test_waiting_ends_when_its_time_is_up(rag: Operations, clock: Clock) -> None:
    script = Script([answered(QUEUED), answered(QUEUED)])
    steps = Operations.wait(rag, str(JOB_ID), timeout_seconds=40)
    heard: Any = None
    with pytest.raises(TimeoutError, match="has not ended: it is queued"):
        for told in script.heard:
            request = steps.send(heard)
            assert isinstance(request, Request)
            clock.now += float(request.query["wait"])
            heard = told
        steps.send(heard)
    assert clock.now == 140


def test_a_service_that_answers_at_once_is_not_asked_in_a_hurry(rag: Operations) -> None:
    script = Script([answered(QUEUED), answered(DONE)])
    script.run(Operations.wait(rag, JOB_ID))
    assert script.pauses == [0.5]


def test_several_jobs_are_waited_for_in_their_order(rag: Operations) -> None:
    script = Script([answered(DONE | {"document_id": name}) for name in "abc"])
    jobs = script.run(Operations.wait_all(rag, [JOB_ID] * 3))
    assert [job.document_id for job in jobs] == ["a", "b", "c"]


def test_a_job_is_followed_through_a_stream_that_breaks(rag: Operations) -> None:
    half = {"job_id": str(JOB_ID), "status": "running", "stage": "embedding", "progress": 0.5}
    script = Script(
        [
            answered(QUEUED),
            STREAM,
            events(("progress", half), ("progress", half)),
            BROKEN,
            REFUSED,
            STREAM,
            events(("progress", half), ("of_next_year", {})),
            b": ping\r\n\r\n",
            b"",
            STREAM,
            events(("done", DONE)),
        ]
    )
    script.run(Operations.follow(rag, JOB_ID))
    seen = [(job.status, job.stage, job.progress) for job in script.items]
    assert seen == [("queued", None, 0.0), ("running", "embedding", 0.5), ("succeeded", None, 0.0)]
    assert all(job.collection == "default" for job in script.items)


def test_following_a_job_that_has_ended_asks_once(rag: Operations) -> None:
    script = Script([answered(DONE)])
    script.run(Operations.follow(rag, JOB_ID))
    assert [job.status for job in script.items] == ["succeeded"]


def test_following_tells_that_the_job_was_removed(rag: Operations) -> None:
    gone = {"status": 404, "code": "job_not_found", "detail": "it was removed"}
    script = Script([answered(QUEUED), STREAM, events(("error", gone))])
    with pytest.raises(JobNotFound, match="it was removed"):
        script.run(Operations.follow(rag, JOB_ID))


def test_a_job_is_not_run_twice_by_a_lost_answer(rag: Operations) -> None:
    script = Script([BROKEN])
    with pytest.raises(Unavailable, match="connection to the service broke"):
        script.run(Operations.retry(rag, JOB_ID))


def test_what_is_no_job_is_refused_before_it_is_asked_for(rag: Operations) -> None:
    with pytest.raises(InvalidInput, match=r"'\.\./keys' is not the id of a job"):
        Script([]).run(Operations.job(rag, "../keys"))


# --- questions ---------------------------------------------------------------------------------


def test_an_answer_comes_as_the_librarys_own_value(rag: Operations) -> None:
    script = Script([answered(ANSWER)])
    answer = script.run(
        Operations.ask(rag, "When?", collection=("a", "b"), history=[Message("user", "Hello")])
    )
    assert sent_json(script.requests[0]) == {
        "question": "When?",
        "collection": ["a", "b"],
        "mode": "hybrid",
        "explain": False,
        "generate": True,
        "history": [{"role": "user", "content": "Hello"}],
    }
    assert isinstance(answer, Answer)
    assert answer.text == "At noon. [1]"
    assert (answer.usage.prompt_tokens, answer.warnings) == (5, ("w",))
    (citation,), (passage,) = answer.citations, answer.passages
    assert (citation.marker, citation.bbox) == (1, (1.0, 2.0, 3.0, 4.0))
    assert passage.places == (Place(3, (1.0, 2.0, 3.0, 4.0)),)
    assert passage.explanation is not None
    assert passage.explanation.matched == ("ferry",)


def test_an_answer_is_streamed_piece_by_piece(rag: Operations) -> None:
    content = events(
        ("passages", {"passages": [PASSAGE]}),
        ("token", {"text": "At "}),
        ("token", {"text": "noon."}),
        ("citations", {"citations": [CITATION], "no_answer_reason": None}),
        ("done", ANSWER),
    )
    script = Script([STREAM, content[:70], content[70:]])
    script.run(Operations.ask_stream(rag, "When?"))
    kinds = [type(each) for each in script.items]
    assert kinds == [AnswerPassages, AnswerText, AnswerText, AnswerCitations, Answer]
    assert "".join(each.text for each in script.items[1:3]) == "At noon."
    assert script.items[-1].text == "At noon. [1]"


@pytest.mark.parametrize("end", [b"", BROKEN])
def test_an_answer_that_breaks_off_is_an_error_and_not_asked_again(
    rag: Operations, end: Any
) -> None:
    script = Script([STREAM, events(("token", {"text": "At "})), end])
    with pytest.raises(Unavailable, match="broke"):
        script.run(Operations.ask_stream(rag, "When?"))
    assert len(script.requests) == 1


def test_an_error_on_the_way_is_raised(rag: Operations) -> None:
    away = {"status": 503, "code": "model_unavailable", "detail": "no model", "request_id": "r5"}
    script = Script([STREAM, events(("error", away))])
    with pytest.raises(ModelUnavailable, match="no model") as raised:
        script.run(Operations.ask_stream(rag, "When?"))
    assert raised.value.request_id == "r5"


def test_feedback_is_sent_again_because_the_last_word_counts(rag: Operations) -> None:
    script = Script([BROKEN, Response(202)])
    assert script.run(Operations.feedback(rag, "6b06", 0.5, comment="Right page")) is None
    assert sent_json(script.requests[1]) == {
        "trace_id": "6b06",
        "score": 0.5,
        "comment": "Right page",
    }


def test_a_stream_that_was_refused_is_asked_for_again(rag: Operations) -> None:
    script = Script([problem(503, "store_unavailable"), STREAM, events(("done", ANSWER))])
    script.run(Operations.ask_stream(rag, "When?"))
    assert [type(each) for each in script.items] == [Answer]


# --- lists -------------------------------------------------------------------------------------


def pages(*sizes: int) -> list[Response]:
    """Pages of documents; each but the last names the next."""
    made = []
    for number, size in enumerate(sizes):
        found = [{"collection": "a", "document_id": f"{number}-{n}"} for n in range(size)]
        cursor = f"{number}-end" if number + 1 < len(sizes) else None
        made.append(answered({"documents": found, "next_cursor": cursor}))
    return made


def test_a_list_asks_for_the_next_page_when_it_is_needed(rag: Operations) -> None:
    script = Script(pages(100, 100, 7))
    script.run(Operations.documents(rag, filters={"year": 2026}))
    assert len(script.items) == 207
    assert [each.query.get("cursor") for each in script.requests] == [None, "0-end", "1-end"]
    assert {each.query["filter"] for each in script.requests} == {'{"year": 2026}'}


def test_a_list_ends_at_its_limit(rag: Operations) -> None:
    script = Script(pages(100, 30, 1)[:2])
    script.run(Operations.documents(rag, limit=130, after="x"))
    assert [each.query["limit"] for each in script.requests] == ["100", "30"]
    assert script.requests[0].query["cursor"] == "x"
    assert len(script.items) == 130
    script = Script([])
    script.run(Operations.documents(rag, limit=0))
    assert script.asked == []


# --- documents ---------------------------------------------------------------------------------


def test_a_document_comes_with_its_versions_and_how_it_was_read(rag: Operations) -> None:
    version = {
        "version_id": str(UUID(int=1)),
        "sequence": 1,
        "state": "current",
        "sha256": "",
        "size_bytes": 1,
    }
    told = {
        "collection": "a",
        "document_id": "b",
        "version_id": str(UUID(int=1)),
        "versions": [version],
        "reading_report": {"parser": "p", "profile": "fast", "mime_type": "m", "ocr_pages": [1]},
    }
    detail = Script([answered(told)]).run(Operations.document(rag, "b"))
    assert detail.document.version_id == detail.versions[0].version_id == UUID(int=1)
    assert detail.reading_report.ocr_pages == (1,)


def test_a_lost_deletion_is_not_sent_again(rag: Operations) -> None:
    script = Script([BROKEN])
    with pytest.raises(Unavailable):
        script.run(Operations.delete(rag, "b"))
    script = Script([problem(503, "store_unavailable")])
    with pytest.raises(StoreUnavailable):
        script.run(Operations.delete_matching(rag, {"year": 1}))


def test_only_what_is_named_is_changed(rag: Operations) -> None:
    def changes(**named: Any) -> Any:
        script = Script([answered({"collection": "a", "document_id": "b"})])
        script.run(Operations.update(rag, "b", **named))
        return sent_json(script.requests[0])

    assert changes(title="T") == {"title": "T"}
    assert changes(metadata={}) == {"metadata": {}}
    assert changes(never_expires=True) == {"expires_at": None}


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_be_another_path_is_refused(rag: Operations, name: str) -> None:
    with pytest.raises(InvalidInput, match="names nothing"):
        Script([]).run(Operations.delete(rag, name))


def test_a_name_is_one_segment_of_the_path(rag: Operations) -> None:
    script = Script([problem(404, "document_not_found")])
    with pytest.raises(RagError):
        script.run(Operations.document(rag, "a/../b?c#d e"))
    assert script.requests[0].path == "/documents/a%2F..%2Fb%3Fc%23d%20e"


# --- the rest ----------------------------------------------------------------------------------


def test_a_new_key_does_not_show_its_secret_by_itself(rag: Operations) -> None:
    told = {"key_id": str(JOB_ID), "name": "n", "scopes": ["query"], "secret": "rk_deep"}
    made = Script([answered(told, 201)]).run(Operations.create_key(rag, "n", scopes=["query"]))
    assert made.secret == "rk_deep"
    assert made.key.scopes == frozenset({"query"})
    assert "rk_deep" not in repr(made)


def test_a_service_that_is_not_ready_is_no_error(rag: Operations) -> None:
    told = {"status": "unavailable", "dependencies": {"database": "store_unavailable"}}
    ready = Script([answered(told, 503)]).run(Operations.ready(rag))
    assert (ready.status, ready.dependencies) == ("unavailable", told["dependencies"])


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"x"', b'{"job_id": 5}', b"{}"])
def test_an_answer_that_is_something_else_is_told(rag: Operations, body: bytes) -> None:
    with pytest.raises(RagError, match="the service"):
        Script([Response(200, {}, body)]).run(Operations.job(rag, JOB_ID))


def test_a_job_may_be_named_by_itself(rag: Operations) -> None:
    script = Script([answered(DONE)])
    job = Job(job_id=JOB_ID, collection="a", document_id="b", status="queued")
    assert script.run(Operations.job(rag, job)).status == "succeeded"
    assert script.requests[0].path == f"/jobs/{JOB_ID}"

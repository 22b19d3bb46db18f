from uuid import UUID

from ragcore.model import (
    Answer,
    Citation,
    Document,
    Explanation,
    Job,
    JobFailure,
    Passage,
    Place,
    SearchResult,
)
from ragcore_api.schemas.documents import DocumentOut
from ragcore_api.schemas.jobs import JobOut
from ragcore_api.schemas.questions import AnswerOut, SearchOut

PASSAGE = Passage(
    chunk_id="c",
    document_id="d",
    collection="default",
    ordinal=0,
    text="Маяк.",
    score=0.5,
    headings=("A", "B"),
    places=(Place(3, (1.0, 2.0, 3.0, 4.0)), Place(4)),
    metadata={"year": 1931},
    explanation=Explanation(vector_rank=1, matched=("маяк",)),
)


def test_a_passage_tells_its_first_page_and_box() -> None:
    passage = SearchOut.of(SearchResult((PASSAGE,), {"embed": 1.0})).model_dump(mode="json")[
        "passages"
    ][0]
    assert (passage["page"], passage["bbox"]) == (3, [1.0, 2.0, 3.0, 4.0])
    assert passage["headings"] == ["A", "B"]
    assert passage["metadata"] == {"year": 1931}
    assert passage["explanation"]["matched"] == ["маяк"]


def test_an_answer_tells_its_text_as_answer() -> None:
    citation = Citation(1, "c", "d", "default", "Маяк.", 0, 5, 0.5, True, page=3)
    told = AnswerOut.of(Answer("Маяк. [1]", (citation,), (PASSAGE,))).model_dump(mode="json")
    assert told["answer"] == "Маяк. [1]"
    assert told["citations"][0]["quote"] == "Маяк."
    assert told["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}


def test_a_failed_job_tells_its_error_and_where_to_look() -> None:
    job_id = UUID(int=7)
    failure = JobFailure("no_text_found", "empty", retryable=False)
    told = JobOut.of(Job(job_id, "default", "d", "failed", error=failure)).model_dump(mode="json")
    assert told["error"] == {"code": "no_text_found", "detail": "empty", "retryable": False}
    assert told["status_url"] == f"/jobs/{job_id}"


def test_a_document_on_its_way_in_has_no_chunks_yet() -> None:
    told = DocumentOut.of(Document("default", "d")).model_dump(mode="json")
    assert (told["chunks"], told["pages"], told["metadata"]) == (0, None, {})

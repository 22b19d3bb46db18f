"""The sample documents answer the sample questions, from the right file and page."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import REPOSITORY, TestServer
from ragcore.model import Answer, Job
from ragcore.rag import Rag
from ragcore.settings import Settings

SAMPLES = REPOSITORY / "samples"
QUESTIONS = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
UNANSWERABLE = (
    "What is the capital of Mongolia?",
    "Who won the football world cup in 1998?",
    "Сколько хромосом у человека?",
)


@dataclass(frozen=True)
class Asked:
    """What one open Rag made of the samples and of all questions."""

    jobs: dict[str, Job]
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def asked(
    postgres_server: TestServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    with postgres_server.database(template=migrated_template) as url:
        settings = Settings(database_url=url, data_dir=tmp_path_factory.mktemp("samples"))
        yield asyncio.run(ask_everything(settings))


async def ask_everything(settings: Settings) -> Asked:
    async with Rag.open(settings) as rag:
        files = sorted((SAMPLES / "documents").iterdir())
        jobs = {path.name: (await rag.ingest(path))[0] for path in files}
        questions = [*(question["question"] for question in QUESTIONS), *UNANSWERABLE]
        return Asked(jobs, {question: await rag.ask(question) for question in questions})


def needs_tesseract(file: str) -> bool:
    return "скан" in file and shutil.which("tesseract") is None


@pytest.mark.parametrize("file", sorted(path.name for path in (SAMPLES / "documents").iterdir()))
def test_every_sample_is_read(file: str, asked: Asked) -> None:
    job = asked.jobs[file]
    if needs_tesseract(file):
        assert job.error is not None and job.error.code == "no_text_found"
    else:
        assert job.outcome == "created", job.error
        assert job.chunks


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["question"])
def test_a_question_is_answered_from_the_right_page(question: dict[str, Any], asked: Asked) -> None:
    if needs_tesseract(question["file"]):
        pytest.skip("reading the scan needs Tesseract")
    answer = asked.answers[question["question"]]
    assert question["contains"] in answer.text
    sources = {(citation.document_id, citation.page) for citation in answer.citations}
    assert (asked.jobs[question["file"]].document_id, question["page"]) in sources
    assert all(citation.supported for citation in answer.citations)


@pytest.mark.parametrize("question", UNANSWERABLE)
def test_what_the_samples_do_not_say_is_declined(question: str, asked: Asked) -> None:
    answer = asked.answers[question]
    assert answer.no_answer_reason is not None
    assert answer.citations == ()

"""Finding the right paragraph when articles come as files: parsing and chunking cost no quality.

    python benchmarks/rendered.py [--languages en ru] [--formats pdf docx html] [--every N]

Every XQuAD article is written as a file, ingested by the whole pipeline, and every question asked.
A hit is right when the best passage is of the right article and holds the right paragraph: more
than half of the paragraph's words stand in it in the same order. The last line of a language is
the same with the paragraphs ingested as texts, one document each.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import get_args

from ragcore import Rag
from ragcore.model import Passage
from ragcore.settings import Settings
from rendering import Article, Format, Question, articles, render


async def main(languages: Sequence[str], formats: Sequence[Format], every: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ragcore-rendered-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the unprivileged server passes through
        async with Rag.open(Settings(data_dir=directory / "data")) as rag:
            for language in languages:
                known = articles(language)
                for form in formats:
                    await ingest_files(rag, known, form, directory / f"{language}-{form}")
                    await report(rag, known, f"{language}-{form}", every)
                await ingest_texts(rag, known, f"{language}-texts")
                await report(rag, known, f"{language}-texts", every)


async def ingest_files(rag: Rag, known: Sequence[Article], form: Format, folder: Path) -> None:
    folder.mkdir()
    for article in known:
        render(article, form, folder / f"{article.number:02}.{form}")
    jobs = [job async for job in rag.ingest_many([folder], collection=folder.name)]
    if any(job.status != "succeeded" for job in jobs):
        raise SystemExit(f"{folder.name}: {[job.error for job in jobs if job.error]}")


async def ingest_texts(rag: Rag, known: Sequence[Article], collection: str) -> None:
    for article in known:
        for position, paragraph in enumerate(article.paragraphs):
            await rag.ingest_text(
                paragraph,
                collection=collection,
                document_id=f"{article.number:02}.{position}",
            )


async def report(rag: Rag, known: Sequence[Article], collection: str, every: int) -> None:
    questions = [question for article in known for question in article.questions][::every]
    right = 0
    for question in questions:
        found = await rag.search(question.text, collection=collection, top_k=1)
        right += bool(found) and is_right(found[0], question, known[question.article])
    print(f"{collection:12} R@1 {right / len(questions):.3f}   ({len(questions)} questions)")


def is_right(passage: Passage, question: Question, article: Article) -> bool:
    """Tell whether the passage is of the article and holds most of the paragraph."""
    if int(passage.document_id.partition(".")[0]) != article.number:
        return False
    wanted, found = article.paragraphs[question.paragraph].split(), passage.text.split()
    matcher = SequenceMatcher(None, wanted, found, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) > len(wanted) / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--languages", nargs="+", default=["en", "ru"])
    parser.add_argument(
        "--formats", nargs="+", default=["pdf", "docx", "html"], choices=get_args(Format)
    )
    parser.add_argument("--every", type=int, default=1, help="ask only every Nth question")
    given = parser.parse_args()
    asyncio.run(main(given.languages, given.formats, given.every))

"""Question sets with known answers, and collections of their texts in a real PostgreSQL."""

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import log2
from pathlib import Path

import numpy as np

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.postgres.chunks import PostgresChunks, copy_chunks
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.migrate import migrate
from ragcore.adapters.postgres.pool import open_pool
from ragcore.embedded import embedded_servers
from ragcore.flows.embedding import Embedding
from ragcore.flows.search import Search
from ragcore.model import Chunk, Place, Vectors

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
_VECTORS = Path(tempfile.gettempdir()) / "ragcore-benchmark-vectors"


@dataclass(frozen=True, slots=True)
class Text:
    """One passage: a document of one chunk."""

    id: str
    text: str
    language: str
    article: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    relevant: frozenset[str]
    """Ids of the texts that answer it, or are about it."""
    answer: str = ""
    answer_start: int = 0
    article: int = 0


@dataclass(frozen=True, slots=True)
class JudgedSet:
    name: str
    texts: Sequence[Text]
    questions: Sequence[Question]
    asked_in: str = "en"


# --- the data ------------------------------------------------------------------------------


def xquad(asked: str, told: str) -> JudgedSet:
    """Questions in one language about the paragraphs in one, parallel in both."""
    questions, texts = [], []
    for number, article in enumerate(_articles(told)):
        for position, paragraph in enumerate(article["paragraphs"]):
            identity = f"{told}-{number}-{position}"
            texts.append(Text(identity, paragraph["context"], told, number))
            asked_paragraph = _articles(asked)[number]["paragraphs"][position]
            for question, told_question in zip(
                asked_paragraph["qas"], paragraph["qas"], strict=True
            ):
                answer = told_question["answers"][0]
                questions.append(
                    Question(
                        question["question"],
                        frozenset({identity}),
                        answer["text"],
                        answer["answer_start"],
                        number,
                    )
                )
    name = asked if asked == told else f"{asked} question, {told} text"
    return JudgedSet(f"xquad {name}", texts, questions, asked)


def xquad_mixed(asked: str, *, english: int) -> tuple[JudgedSet, JudgedSet]:
    """One collection where every other article is English and the rest Russian.

    `english` 0 or 1 says which ones. Returns the questions whose answer is in their own language
    and those whose answer is only there in the other.
    """
    halves = {
        language: [t for t in xquad(language, language).texts if (t.article % 2 == english) == own]
        for language, own in (("en", True), ("ru", False))
    }
    texts = [*halves["en"], *halves["ru"]]
    ids = {text.id for text in texts}
    found = []
    for told, name in (
        (asked, "own language"),
        ({"en": "ru", "ru": "en"}[asked], "other language"),
    ):
        questions = [q for q in xquad(asked, told).questions if q.relevant <= ids]
        found.append(JudgedSet(f"mixed, {asked}, {name}", texts, questions, asked))
    return found[0], found[1]


def npl(*, cut: bool) -> JudgedSet:
    """Short abstracts and questions by librarians; the cut has 3,000 of the 11,429 texts."""
    kept = set((SHARED / "npl" / "cut-3000.txt").read_text(encoding="utf-8").split())
    texts = [
        Text(str(row["id"]), row["text"], "en")
        for row in _lines("npl/corpus.jsonl")
        if not cut or str(row["id"]) in kept
    ]
    relevant: dict[str, set[str]] = {}
    for line in (SHARED / "npl" / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        question, text, _ = line.split("\t")
        relevant.setdefault(question, set()).add(text)
    questions = [
        Question(row["text"], frozenset(relevant[str(row["id"])]))
        for row in _lines("npl/queries.jsonl")
    ]
    return JudgedSet("npl, cut of 3,000" if cut else "npl, all 11,429", texts, questions)


def is_tuned_on(article: int) -> bool:
    """Say whether an XQuAD article belongs to the half that constants were tuned on."""
    return article in _TUNED_ON


_TUNED_ON = frozenset(np.random.RandomState(7).permutation(48)[:24].tolist())


def _articles(language: str) -> Sequence[Mapping]:
    if language not in _loaded:
        path = SHARED / "xquad" / f"xquad.{language}.json"
        _loaded[language] = json.loads(path.read_text(encoding="utf-8"))["data"]
    return _loaded[language]


_loaded: dict[str, Sequence[Mapping]] = {}


def _lines(name: str) -> Sequence[Mapping]:
    text = (SHARED / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# --- the collections -----------------------------------------------------------------------


@dataclass
class Bench:
    """A real PostgreSQL and the bundled model, with collections of judged texts."""

    collections: PostgresCollections
    chunks: PostgresChunks
    pool: object
    model: BundledEmbedder
    embedder: Embedding
    filled: set[str] = field(default_factory=set)

    @property
    def search(self) -> Search:
        return Search(chunks=self.chunks, embedder=self.embedder)

    async def fill(self, collection: str, texts: Sequence[Text]) -> None:
        """Put the texts into a collection, once, as documents of one chunk each."""
        await self.fill_documents(collection, {text.id: [text] for text in texts})

    async def fill_documents(
        self, collection: str, documents: Mapping[str, Sequence[Text]]
    ) -> None:
        """Put documents into a collection, once; each text is a chunk on a page of its own."""
        if collection in self.filled:
            return
        self.filled.add(collection)
        await self.collections.open(collection, embedding=self.model.spec, chunker="whole")
        texts = [text.text for chunks in documents.values() for text in chunks]
        vectors, used = await self._vectors(texts), 0
        async with self.pool.connection() as connection, connection.transaction():
            for name, chunks in documents.items():
                own = vectors[used : used + len(chunks)]
                await _add(connection, collection, name, chunks, own)
                used += len(chunks)

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Embed the texts, or take them from the last run with the same model and texts."""
        key = hashlib.sha256("\0".join((repr(self.model.spec), *texts)).encode()).hexdigest()[:24]
        path = _VECTORS / f"{key}.npy"
        if path.exists():
            return np.load(path)
        vectors = await self.model.embed_documents(texts)
        _VECTORS.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
        return vectors


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with embedded_servers(data_dir, valkey=False) as servers:
            await migrate(servers.database_url)
            async with open_pool(servers.database_url, size=4) as pool:
                model = BundledEmbedder()
                yield Bench(
                    PostgresCollections(pool),
                    PostgresChunks(pool),
                    pool,
                    model,
                    Embedding(model),
                )
                await model.aclose()


async def _add(
    connection, collection: str, name: str, texts: Sequence[Text], vectors: Vectors
) -> None:
    cursor = await connection.execute(
        "INSERT INTO ragcore.documents (collection, document_id, language) VALUES (%s, %s, %s)"
        " RETURNING document_no",
        (collection, name, texts[0].language),
    )
    (document_no,) = await cursor.fetchone()
    chunks = [
        Chunk(
            text.id,
            ordinal,
            text.text,
            text.text,
            tokens=0,
            language=text.language,
            places=(Place(ordinal + 1),),
        )
        for ordinal, text in enumerate(texts)
    ]
    await copy_chunks(
        connection,
        collection,
        document_no=document_no,
        document_id=name,
        chunks=chunks,
        vectors=vectors,
    )


# --- the measures --------------------------------------------------------------------------


def recall_at_1(found: Sequence[str], relevant: frozenset[str]) -> float:
    """1 when the first text found is relevant."""
    return float(bool(found) and found[0] in relevant)


def ndcg_at_10(found: Sequence[str], relevant: frozenset[str]) -> float:
    """Normalised discounted cumulative gain of the first ten, binary relevance."""
    gain = sum(1 / log2(rank + 2) for rank, text in enumerate(found[:10]) if text in relevant)
    return gain / sum(1 / log2(rank + 2) for rank in range(min(len(relevant), 10)))

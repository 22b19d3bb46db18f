"""One search as one statement: which fragments of search.sql it is made of, what its rows mean."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from ragcore.adapters.postgres import filters, sql
from ragcore.adapters.postgres.layout import embedding_spec, passage
from ragcore.model import AllOf, Candidate, Candidates, Filter, Term, Vector

SQL: Final = sql.load("search.sql")

_MOST_TERMS: Final = 64
"""Lexemes of a question that are looked for, from its beginning."""

_MOST_COUNTED: Final = 4_000
"""The frequency of a word is counted so far, and estimated beyond."""

_MOST_QUESTION_CHARACTERS: Final = 10_000

_ALL: Final = 2**31 - 1  # rows
_EVERYTHING: Final = AllOf(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched for, and how much work that may take."""

    collection: str
    """A checked name: it goes into the statement's text."""
    table: str | None = None
    """Likewise, of another generation's table; None: of the one that answers."""
    vector: Vector | None
    text: str | None
    filters: Filter | None
    vector_limit: int
    keyword_limit: int
    exact_rows: int
    """Up to so many rows are scanned exactly."""
    postings: int
    """Most postings read to propose chunks; the words more frequent than that are looked up."""
    chunk_ids: Sequence[str] | None = None
    """Only these chunks, where given."""
    is_of_many: bool = False
    """Whether the collection is known to hold more than `exact_rows` chunks."""

    @property
    def is_filtered(self) -> bool:
        return self.filters is not None or self.chunk_ids is not None

    def exhaustive(self) -> "Search":
        """Return the same search with no limit to its work: it returns all there is."""
        return replace(self, exact_rows=_ALL, postings=_ALL, is_of_many=False)

    @property
    def has_one_plan(self) -> bool:
        """Whether the statement is planned the same way for every question."""
        return self._shape() == "nearest_of_many"

    def statement(self) -> tuple[str, Mapping[str, Any]]:
        """Return the statement and its parameters. Raises InvalidFilter."""
        text = _text(
            self._shape(),
            self.collection,
            self.table or self.collection,
            self.vector_limit,
            is_filtered=self.is_filtered,
            has_vector=self.vector is not None,
        )
        if not self.is_filtered:
            return text, self._values()
        wanted = _EVERYTHING if self.filters is None else self.filters
        document_filter, document_values = filters.document_condition(wanted)
        own_filter, own_values = filters.own_condition(wanted)
        if self.chunk_ids is not None:
            document_filter = f"t.id = ANY(%(chunk_ids)s) AND ({document_filter})"
            own_filter = f"t.id = ANY(%(chunk_ids)s) AND ({own_filter})"
        text = text.replace("{document_filter}", document_filter).replace(
            "{own_filter}", own_filter
        )
        return text, {**document_values, **own_values, **self._values()}

    def is_short(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a leg returned less than it might have."""
        return self._missing_nearest(rows) > 0 or self._may_miss_words(rows)

    def candidates(self, rows: Sequence[Mapping[str, Any]]) -> Candidates:
        """Make sense of the statement's rows: at least one, for what holds of the collection."""
        header = rows[0]
        return Candidates(
            candidates=tuple(_candidate(self.collection, row) for row in rows if row["id"]),
            terms=tuple(
                Term(lexeme, frequency, idf, tuple(configurations))
                for lexeme, frequency, idf, configurations in _terms(header)
            ),
            total_chunks=header["total_chunks"],
            languages=_languages(header),
            exact=header["are_few"],
            shortfall=self._missing_nearest(rows),
            embedding=header["embedding"] and embedding_spec(header["embedding"]),
            generation=header["generation"],
        )

    def _shape(self) -> str:
        if self.text is not None:
            return "both_legs"
        return "nearest_of_many" if self.is_of_many and not self.is_filtered else "vector_leg"

    def _values(self) -> Mapping[str, Any]:
        return {
            "vector": self.vector,
            "text": _sendable(self.text or ""),
            "chunk_ids": None if self.chunk_ids is None else list(self.chunk_ids),
            "vector_limit": self.vector_limit,
            "keyword_limit": self.keyword_limit,
            "exact_rows": self.exact_rows,
            "postings": self.postings,
            "most_terms": _MOST_TERMS,
            "most_counted": _MOST_COUNTED,
        }

    def _missing_nearest(self, rows: Sequence[Mapping[str, Any]]) -> int:
        if self.vector is None:
            return 0
        header = rows[0]
        there: int = header["matching"] if self.is_filtered else header["total_chunks"]
        found = sum(row["id"] is not None and row["vector_rank"] is not None for row in rows)
        return max(0, min(self.vector_limit, there) - found)

    def _may_miss_words(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the words that were only looked up could propose more chunks."""
        header = rows[0]
        held = sum(frequency > 0 for _, frequency, _, _ in _terms(header))
        found = sum(row["keyword_rank"] is not None for row in rows)
        return header["essential_terms"] < held and found < self.keyword_limit


@lru_cache(maxsize=256)
def _text(
    shape: str,
    collection: str,
    table: str,
    vector_limit: int,
    *,
    is_filtered: bool,
    has_vector: bool,
) -> str:
    """Put a statement together; conditions of a filter are left to be put in."""
    text = SQL[shape]
    for name, fragment in _fragments(is_filtered=is_filtered, has_vector=has_vector).items():
        text = text.replace(f"{{{name}}}", fragment)
    if not is_filtered:
        everything, _ = filters.document_condition(_EVERYTHING)
        text = text.replace("{document_filter}", everything).replace("{own_filter}", everything)
    text = text.replace("{collection}", collection).replace("{table}", table)
    return text.replace("{vector_limit}", str(vector_limit))


def _fragments(*, is_filtered: bool, has_vector: bool) -> Mapping[str, str]:
    """The fragments by name, outer ones first."""
    nearest = "nearest_matching" if is_filtered else "nearest"
    return {
        "opening": SQL["opening"],
        "header": SQL["header"],
        "passage": SQL["passage"],
        "matching": SQL["matching" if is_filtered else "none"],
        "few": SQL["few_matching" if is_filtered else "few_at_all"],
        "nearest": SQL[nearest if has_vector else "none"],
        "terms": SQL["terms"],
        "worded": SQL["worded_matching" if is_filtered else "worded"],
        "lets_through": SQL["lets_through"],
        "bm25": SQL["bm25"],
        "distance": SQL["distance" if has_vector else "no_distance"],
        "cosine": SQL["cosine" if has_vector else "no_cosine"],
    }


def _languages(header: Mapping[str, Any]) -> Mapping[str, int]:
    counted: Counter[str] = Counter()
    for language, chunks in json.loads(header["languages"]) if header["languages"] else ():
        counted[language] += chunks
    return dict(counted)


def _sendable(question: str) -> str:
    """Leave out what PostgreSQL can't be sent: NUL and halves of surrogate pairs."""
    text = question[:_MOST_QUESTION_CHARACTERS].replace("\0", " ")
    return text.encode("utf-8", "ignore").decode("utf-8")


def _terms(header: Mapping[str, Any]) -> Sequence[tuple[str, int, float, Sequence[str]]]:
    """Lexeme, frequency, idf and configurations of each word of the question."""
    if not header["terms"]:
        return ()
    terms: Sequence[tuple[str, int, float, Sequence[str]]] = json.loads(header["terms"])
    return terms


def _candidate(collection: str, row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        passage=passage(collection, row),
        cosine=row["cosine"],
        bm25=row["bm25"],
        vector_rank=row["vector_rank"],
        keyword_rank=row["keyword_rank"],
        matched=tuple(row["matched"] or ()),
    )

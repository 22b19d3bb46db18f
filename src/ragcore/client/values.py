"""Answers as values: those of the library where they fit, and a few that only a service tells.

What a newer service tells besides is passed over, and what an older one leaves out has the value's
own default, so that client and service need not be of one version.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from ragcore.errors import RagError
from ragcore.model import (
    Answer,
    ApiKey,
    Box,
    Citation,
    Document,
    GenerationState,
    Job,
    JobFailure,
    JobStatus,
    NoAnswerReason,
    Outcome,
    Passage,
    Place,
    ReadingReport,
    SearchResult,
    Version,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AnswerCitations:
    """What holds the text of a streamed answer: told after its text, before the whole answer."""

    citations: tuple[Citation, ...]
    no_answer_reason: NoAnswerReason | None = None


@dataclass(frozen=True, slots=True)
class DocumentDetail:
    """A document, each of its versions, and how well the one in place could be read."""

    document: Document
    versions: tuple[Version, ...]
    """The newest first."""
    reading_report: ReadingReport | None
    """None while nothing of it is in place."""


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A stretch of a document's text, as it is found and cited."""

    chunk_id: str
    ordinal: int
    """Position in the document, from 0."""
    text: str
    headings: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    """In reading order; empty where the format has no pages."""
    language: str | None = None

    @property
    def page(self) -> int | None:
        return self.places[0].page if self.places else None

    @property
    def box(self) -> Box | None:
        return self.places[0].box if self.places else None


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection: what it was made with, and how much it holds."""

    name: str
    embedding_model: str
    dimension: int
    chunker: str = ""
    language: str | None = None
    strict: bool = False
    documents: int = 0
    chunks: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """A collection's chunks under another embedding model or chunker than those that answer."""

    generation: int
    state: GenerationState
    embedding_model: str
    dimension: int
    chunker: str = ""
    documents: int = 0
    """It holds so many as they are in place."""
    missing: int = 0
    """It lacks so many, or holds another version of them."""
    created_at: datetime | None = None
    retired_at: datetime | None = None
    job: Job | None = None
    """Of its filling, with the comparison in its `result`; None when it is no longer kept."""


@dataclass(frozen=True, slots=True)
class ReindexState:
    """What answers, and what there is beside it."""

    collection: CollectionInfo
    generations: tuple[GenerationInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """What a bucket's job decided about an object, and what became of it."""

    key: str
    action: str
    """`new`, `changed`, `gone`, `deleted`, `skipped` or `failed_before`."""
    reason: str | None = None
    """Why it was left out, or how it failed before."""
    job_id: UUID | None = None
    """The job of its document, where it has one."""
    status: JobStatus | None = None
    outcome: Outcome | None = None
    error: JobFailure | None = None


@dataclass(frozen=True, slots=True)
class ConvertedChunk:
    """A stretch of a converted file, as ingestion would cut it."""

    ordinal: int
    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    bbox: Box | None = None
    start: int | None = None
    """Character span in the document's Markdown."""
    end: int | None = None
    tokens: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """A file as it was understood; nothing of it is stored."""

    content: str | Mapping[str, Any] | tuple[ConvertedChunk, ...]
    """A text for `markdown` and `text`, the DoclingDocument for `json`, chunks for `chunks`."""
    filename: str | None = None
    mime_type: str = ""
    title: str | None = None
    language: str | None = None
    pages: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key just made, with the only sight of its secret."""

    key: ApiKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether questions can be answered, and the state of each dependency."""

    status: Literal["ok", "degraded", "unavailable"]
    dependencies: Mapping[str, str] = field(default_factory=dict)
    """`ok`, `timeout`, or the code of what is wrong."""


@dataclass(frozen=True, slots=True)
class ServiceVersion:
    """Which service this is."""

    version: str
    embedding_model: str = ""


# --- those whose shape differs -----------------------------------------------------------------


def jobs_of(told: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of what was taken in. Raises RagError when there is none."""
    jobs = [made(Job, job) for job in _list(told.get("jobs"))]
    if not jobs:
        raise RagError("the service took it in and named no job")
    return jobs


def answer_of(told: Any) -> Answer:
    fields = _object(told)
    return made(Answer, {**fields, "text": fields.get("answer")}, passages=passages_of)


def search_result_of(told: Any) -> SearchResult:
    return made(SearchResult, told, passages=passages_of)


def passages_of(told: Any) -> tuple[Passage, ...]:
    return tuple(
        made(Passage, {"ordinal": 0, **_object(each), "places": _places(each)})
        for each in _list(told)
    )


def _places(told: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Tell `page` and `bbox`, the first place of a passage, as a place."""
    if told.get("page") is None:
        return ()
    return ({"page": told["page"], "box": told.get("bbox")},)


def document_detail_of(told: Any) -> DocumentDetail:
    versions = made(_Versions, told)
    return DocumentDetail(made(Document, told), versions.versions, versions.reading_report)


@dataclass(frozen=True, slots=True)
class _Versions:
    versions: tuple[Version, ...] = ()
    reading_report: ReadingReport | None = None


def chunk_of(told: Any) -> DocumentChunk:
    places = [{**_object(place), "box": place.get("bbox")} for place in _list(told.get("places"))]
    return made(DocumentChunk, {**_object(told), "places": places})


def converted_of(told: Any) -> Converted:
    content = _object(told).get("content")
    if isinstance(content, list):
        content = tuple(made(ConvertedChunk, each) for each in content)
    return made(Converted, told, content=lambda _: content)


# --- from JSON ---------------------------------------------------------------------------------


def made(kind: type[T], told: Any, **how: Callable[[Any], Any]) -> T:
    """Make a value of a JSON object, field by field after the types of its class.

    `how` makes the fields that need more than that. Raises RagError where the object can't be one.
    """
    given = _object(told)
    fields = {}
    try:
        hashable: Any = kind  # mypy takes a type[T] for one that is not
        for name, make in _makers(hashable).items():
            if name in how:
                fields[name] = how[name](given.get(name))
            elif name in given:
                fields[name] = make(given[name])
        return kind(**fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RagError(f"the service's answer is no {kind.__name__}: {error}") from error


@cache
def _makers(kind: Any) -> Mapping[str, Callable[[Any], Any]]:
    hints = get_type_hints(kind)
    return {each.name: _maker(hints[each.name]) for each in dataclasses.fields(kind)}


def _maker(hint: Any) -> Callable[[Any], Any]:
    """Return what makes a value of this type from JSON; plain ones are taken as they come."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = [each for each in arguments if each is not types.NoneType]
        make = _maker(inner[0]) if len(inner) == 1 else _as_it_is
        return lambda told: None if told is None else make(told)
    if origin is tuple or origin is Sequence:
        make = _maker(arguments[0])  # one type for all, in every tuple that is told
        return lambda told: tuple(make(each) for each in _list(told))
    if origin is frozenset:
        return lambda told: frozenset(_list(told))
    if hint is UUID:
        return UUID
    if hint is datetime:
        return datetime.fromisoformat
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return lambda told: made(hint, told)
    return _as_it_is


def _as_it_is(told: Any) -> Any:
    return told


def _object(told: Any) -> Mapping[str, Any]:
    if not isinstance(told, Mapping):
        raise RagError(f"the service answered {str(told)[:80]!r} where an object belongs")
    return told


def _list(told: Any) -> Sequence[Any]:
    if told is None:
        return ()
    if not isinstance(told, list | tuple):
        raise RagError(f"the service answered {str(told)[:80]!r} where a list belongs")
    return told

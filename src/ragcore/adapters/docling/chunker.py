"""A DoclingDocument → chunks: Docling's HybridChunker, held to the embedding model's limit.

HybridChunker knows the structure (sections, lists, tables) and merges small neighbours of one
section. Cutting what is too large is done here, because its own ways lose or overfill: the table
path forgets the headings' share, chunks vanish under headings that are longer than the limit, and
a long line is tokenized over and over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, cast

from docling_core.transforms.chunker.doc_chunk import DocChunk, DocMeta
from docling_core.transforms.chunker.hierarchical_chunker import (
    ChunkingDocSerializer,
    ChunkingSerializerProvider,
)
from docling_core.transforms.chunker.hybrid_chunker import HybridChunker
from docling_core.transforms.chunker.tokenizer.base import BaseTokenizer
from docling_core.transforms.serializer.markdown import MarkdownParams, MarkdownTableSerializer
from docling_core.types.doc import (
    ContentLayer,
    DocItem,
    DoclingDocument,
    ImageRefMode,
    ProvenanceItem,
    TableItem,
)
from pydantic import ConfigDict

from ragcore.adapters.docling.splitting import split_table, split_text
from ragcore.errors import InvalidInput
from ragcore.model import Box, Chunk, Place
from ragcore.steps.languages import detect

CHUNKER = "hybrid-1"
"""Name of this way of cutting; a change that moves borders changes it."""

CountTokens = Callable[[str], int]


def chunk_document(
    document: DoclingDocument,
    *,
    max_tokens: int,
    count_tokens: CountTokens,
    language_hint: str | None = None,
    seed: str = "",
    markdown: str | None = None,
) -> list[Chunk]:
    """Cut a document into chunks whose `embedding_text` counts at most `max_tokens`.

    `count_tokens` counts all that the model reads, prefix and special tokens included. Every word
    of the body is in the text of a chunk or in its headings. Ids hash `seed`, position and text:
    give a seed per document. `start` and `end` are offsets in `markdown`, if given (`to_markdown`).
    Raises InvalidInput when `max_tokens` leaves no room for text.
    """
    budget = Budget(max_tokens, count_tokens)
    chunker = BudgetedChunker(tokenizer=_Tokens(budget=budget), budget=budget)
    found = [chunk for chunk in chunker.chunk(document) if isinstance(chunk, DocChunk)]
    drafts = list(_drafts(found, budget))
    places = _Places(document)
    locator = _Locator(markdown) if markdown is not None else None
    return [
        _finished(ordinal, draft, budget, places, locator, language_hint, seed)
        for ordinal, draft in enumerate(drafts)
    ]


def to_markdown(document: DoclingDocument) -> str:
    """Return the document as the Markdown that chunks are cut from."""
    return _serializer(document).serialize().text


# --- the limit -----------------------------------------------------------------------------


class Budget:
    """How many tokens a chunk may have, and how many of them its headings take."""

    def __init__(self, max_tokens: int, count_tokens: CountTokens) -> None:
        self.max_tokens = max_tokens
        self.total = lru_cache(maxsize=4096)(count_tokens)
        self.fixed = self.total("")
        """What the model adds to any text: prefix, begin, end."""
        if max_tokens - self.fixed < _LEAST_ROOM:
            raise InvalidInput(
                f"max_tokens={max_tokens!r} leaves no room for text after the model's own "
                f"{self.fixed} tokens; set it to {self.fixed + _LEAST_ROOM} or more"
            )
        self.context = lru_cache(maxsize=1024)(self._context)

    def tokens(self, text: str) -> int:
        """Count a text on its own, without what the model adds."""
        return max(0, self.total(text) - self.fixed)

    def room(self, headings: tuple[str, ...]) -> int:
        """Return how many tokens are left for the text under these headings."""
        above = self.context(headings)
        return self.max_tokens - self.fixed - (self.tokens(above + "\n") if above else 0)

    def contextualized(self, headings: tuple[str, ...], text: str) -> str:
        above = self.context(headings)
        return f"{above}\n{text}" if above and text else above or text

    def kept(self, headings: tuple[str, ...]) -> tuple[str, ...]:
        """Return the headings that are embedded whole: innermost first, a third of the limit."""
        kept: tuple[str, ...] = ()
        for heading in reversed(headings):
            if self.tokens("\n".join([heading, *kept])) > self._share:
                break
            kept = (heading, *kept)
        return kept

    @property
    def _share(self) -> int:
        return (self.max_tokens - self.fixed) // 3

    def _context(self, headings: tuple[str, ...]) -> str:
        """Return the kept headings, or else the beginning of the innermost one."""
        if (kept := self.kept(headings)) or not headings:
            return "\n".join(kept)
        innermost = headings[-1]
        spans = split_text(innermost, room=self._share, count=self.tokens)
        return innermost[spans[0][0] : spans[0][1]] if spans else ""


_LEAST_ROOM = 16


class _Tokens(BaseTokenizer):
    """A budget as Docling's tokenizer. Docling counts without what the model adds, so do we."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    budget: Any

    def count_tokens(self, text: str) -> int:
        return int(self.budget.tokens(text))

    def get_max_tokens(self) -> int:
        return int(self.budget.max_tokens - self.budget.fixed)

    def get_tokenizer(self) -> Any:
        return self.count_tokens


# --- Docling's chunker ---------------------------------------------------------------------


class _Serializers(ChunkingSerializerProvider):
    def get_serializer(self, doc: DoclingDocument) -> ChunkingDocSerializer:
        return _serializer(doc)


def _serializer(document: DoclingDocument) -> ChunkingDocSerializer:
    """Write tables as compact Markdown (triplets take 14 times as long), and text in pictures."""
    return ChunkingDocSerializer(
        doc=document,
        table_serializer=MarkdownTableSerializer(),
        params=MarkdownParams(
            image_mode=ImageRefMode.PLACEHOLDER,
            image_placeholder="",
            escape_underscores=False,
            escape_html=False,
            compact_tables=True,
            traverse_pictures=True,
            layers={ContentLayer.BODY, ContentLayer.NOTES},
        ),
    )


class BudgetedChunker(HybridChunker):
    """HybridChunker with exact cutting: what it yields never exceeds the budget."""

    serializer_provider: Any = _Serializers()
    always_emit_headings: bool = True
    delim: str = "\n"
    budget: Any

    def contextualize(self, chunk: Any) -> str:
        text: str = self.budget.contextualized(_headings(chunk), chunk.text)
        return text

    def _split_by_doc_items(self, doc_chunk: DocChunk, doc_serializer: Any) -> list[DocChunk]:
        """Leave it to the cut by text: items written one by one lose their bullets and nesting."""
        return [doc_chunk]

    def _split_using_plain_text(self, doc_chunk: DocChunk, doc_serializer: Any) -> list[DocChunk]:
        budget, text = cast(Budget, self.budget), doc_chunk.text
        room = budget.room(_headings(doc_chunk))
        if len(text) <= 12 * room and budget.tokens(text) <= room:
            return [doc_chunk]
        items = doc_chunk.meta.doc_items
        if len(items) == 1 and isinstance(items[0], TableItem):
            return [
                _piece(doc_chunk, t, items)
                for t in split_table(text, room=room, count=budget.tokens)
            ]
        spans = split_text(text, room=room, count=budget.tokens)
        stretches = _stretches(items, text)
        return [_piece(doc_chunk, text[a:b], _items_between(stretches, a, b)) for a, b in spans]


def _headings(chunk: Any) -> tuple[str, ...]:
    return tuple(chunk.meta.headings or ())


def _piece(whole: DocChunk, text: str, items: Sequence[DocItem]) -> DocChunk:
    meta = DocMeta(doc_items=list(items), headings=whole.meta.headings, origin=whole.meta.origin)
    return DocChunk(text=text, meta=meta)


# --- which part of a text is which item ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Where an item's text begins and ends in the text of its chunk."""

    item: DocItem
    start: int
    end: int


_KEY_CHARACTERS = 40


def _stretches(items: Sequence[DocItem], text: str) -> list[_Stretch]:
    """Find each item's beginning in the text, in order; an item reaches to the next one's."""
    starts: list[int] = []
    position = 0
    for item in items:
        key = getattr(item, "text", "")[:_KEY_CHARACTERS].strip()
        found = text.find(key, position) if key else -1
        position = found if found >= 0 else position
        starts.append(position)
    ends = [*starts[1:], len(text)]
    return [
        _Stretch(item, start, max(start, end))
        for item, start, end in zip(items, starts, ends, strict=True)
    ]


def _items_between(stretches: Sequence[_Stretch], start: int, end: int) -> list[DocItem]:
    """Return the items that a piece holds, each with only those places that the piece covers."""
    chosen = [s for s in stretches if s.start < end and (s.end > start or s.start >= start)]
    chosen = chosen or [stretches[-1]]
    return [_with_places_between(s, start, end) for s in chosen]


def _with_places_between(stretch: _Stretch, start: int, end: int) -> DocItem:
    """Return the item; if it stands at several places, a copy with those of this stretch."""
    item = stretch.item
    if len(item.prov) < 2:
        return item
    covered: list[ProvenanceItem] = []
    offset = stretch.start
    for prov in item.prov:
        length = prov.charspan[1] - prov.charspan[0]
        if offset < end and offset + length > start:
            covered.append(prov)
        offset += length + 1
    return item.model_copy(update={"prov": covered or item.prov[-1:]})


# --- from Docling's chunks to ours ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    text: str
    headings: tuple[str, ...]
    items: tuple[DocItem, ...]
    context: tuple[str, ...]
    """The headings that are embedded with it; none for a heading that is itself the text."""


def _drafts(chunks: Sequence[DocChunk], budget: Budget) -> Iterator[_Draft]:
    """Yield the chunks; what only a heading says, and no chunk embeds, becomes a chunk too."""
    told = {heading for chunk in chunks for heading in budget.kept(_headings(chunk))}
    for chunk in chunks:
        headings, items = _headings(chunk), tuple(chunk.meta.doc_items)
        for heading in headings:
            if heading not in told:
                told.add(heading)
                yield from _heading_drafts(heading, headings, items, budget)
        if text := _clean(chunk.text).strip():
            yield _Draft(text, headings, items, headings)
        elif headings:  # a section without text
            yield from _heading_drafts("\n".join(headings), headings, items, budget)


def _heading_drafts(
    words: str, headings: tuple[str, ...], items: tuple[DocItem, ...], budget: Budget
) -> Iterator[_Draft]:
    words = _clean(words)
    for start, end in split_text(words, room=budget.max_tokens - budget.fixed, count=budget.tokens):
        yield _Draft(words[start:end], headings, items, ())


def _finished(
    ordinal: int,
    draft: _Draft,
    budget: Budget,
    places: "_Places",
    locator: "_Locator | None",
    language_hint: str | None,
    seed: str,
) -> Chunk:
    embedding_text = _clean(budget.contextualized(draft.context, draft.text))
    start, end = locator.find(draft.text) if locator else (None, None)
    return Chunk(
        chunk_id=chunk_id(seed, ordinal, draft.text),
        ordinal=ordinal,
        text=draft.text,
        embedding_text=embedding_text,
        tokens=budget.total(embedding_text),
        headings=tuple(_clean(heading) for heading in draft.headings),
        places=places.of(draft.items),
        elements=tuple(dict.fromkeys(item.self_ref for item in draft.items)),
        start=start,
        end=end,
        language=detect(draft.text, hint=language_hint),
    )


def chunk_id(seed: str, ordinal: int, text: str) -> str:
    """Return an id that the same text at the same place of the same document always has."""
    parts = (seed, str(ordinal), text)
    return blake2b("\x00".join(parts).encode("utf-8"), digest_size=16).hexdigest()


def _clean(text: str) -> str:
    """Drop NULs, which PostgreSQL refuses, and halves of surrogate pairs, which UTF-8 has not."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


# --- places --------------------------------------------------------------------------------

_EMU_OF_A_POINT = 12_700.0
_LARGEST_PAGE = 20_000.0
"""Points. Slides are measured in English Metric Units, a thousand times as many."""


class _Places:
    """Places of items as page and box in points from the top-left corner."""

    def __init__(self, document: DoclingDocument) -> None:
        self._pages = document.pages
        mime_type = document.origin.mimetype if document.origin else ""
        self._are_sheets = "spreadsheet" in mime_type or "excel" in mime_type

    def of(self, items: Iterable[DocItem]) -> tuple[Place, ...]:
        """Return one place per page, in reading order, its box around all parts on that page."""
        boxes: dict[int, list[Box]] = {}
        for prov in (prov for item in items for prov in item.prov):
            boxes.setdefault(prov.page_no, [])
            if (box := self._box(prov)) is not None:
                boxes[prov.page_no].append(box)
        return tuple(Place(page, _around(parts)) for page, parts in boxes.items())

    def _box(self, prov: ProvenanceItem) -> Box | None:
        """Return the box; None on a sheet, where boxes are rows and columns."""
        page = self._pages.get(prov.page_no)
        if page is None or self._are_sheets:
            return None
        box = prov.bbox.to_top_left_origin(page.size.height)
        scale = 1 / _EMU_OF_A_POINT if page.size.width > _LARGEST_PAGE else 1.0
        left, top, right, bottom = (round(side * scale, 1) for side in (box.l, box.t, box.r, box.b))
        return left, top, right, bottom


def _around(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


_TRIES = 50
_REACH = 20_000


class _Locator:
    """Finds chunks in the document's Markdown, each after the one before."""

    def __init__(self, markdown: str) -> None:
        self._markdown = markdown
        self._position = 0

    def find(self, text: str) -> tuple[int | None, int | None]:
        """Return start and end of a text that stands there as it is, white space aside.

        The search looks no further than a few chunks on, so a text that is nowhere costs little.
        """
        words = text.split()
        furthest = self._position + 4 * len(text) + _REACH
        start = self._position - 1
        for _ in range(_TRIES):
            start = self._markdown.find(words[0], start + 1, furthest)
            if start < 0:
                break
            if (end := self._end(words, start)) is not None:
                self._position = end
                return start, end
        return None, None

    def _end(self, words: Sequence[str], position: int) -> int | None:
        """Return where the words, with white space between them, end; None if others come."""
        markdown = self._markdown
        for word in words:
            while position < len(markdown) and markdown[position].isspace():
                position += 1
            if not markdown.startswith(word, position):
                return None
            position += len(word)
        return position

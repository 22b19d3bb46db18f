"""How a chunk is laid out in its row, both ways. The columns are described in collection.sql."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ragcore.model import Chunk, EmbeddingSpec, Passage, Place

LAYOUT_KEYS: Final = (
    "text",
    "doc_id",
    "ref_doc_id",
    "document_id",
    "relationships",
    "node_info",
    "_node_content",
    "_node_type",
)
"""Keys of `metadata` that say how a node is kept, by us or a stock client: not its metadata."""


def stored_metadata(chunk: Chunk, document_id: str) -> dict[str, Any]:
    """Return what `metadata` of an ingested chunk holds: flat, as the stock clients like it."""
    page = chunk.page
    found = {
        "text": chunk.text,
        "doc_id": document_id,
        "relationships": source_relationship(document_id),
        "headings": list(chunk.headings),
        "elements": list(chunk.elements),
        "places": [[place.page, place.box] for place in chunk.places],
        "page": page,
        "start": chunk.start,
        "end": chunk.end,
    }
    return {name: value for name, value in found.items() if value is not None and value != []}


def embedding_spec(stored: Mapping[str, Any]) -> EmbeddingSpec:
    """Read back what a collection was made with."""
    languages = stored["languages"]
    known = None if languages is None else frozenset(languages)
    return EmbeddingSpec(**{**stored, "languages": known})


def source_relationship(document_id: str) -> str:
    """Name a node's document as the stock store reads it where there is no `_node_content`."""
    return json.dumps({"1": document_id})  # NodeRelationship.SOURCE


def context_of(chunk: Chunk) -> str | None:
    """Return what `embedding_text` says beyond the text, so that its words are found as well."""
    context = chunk.embedding_text.removesuffix(chunk.text).strip()
    return context or None


def embedded_texts(text: str, context: str | None) -> tuple[str, ...]:
    """Return what a chunk may have been embedded from: the reverse of `context_of`."""
    return (text,) if context is None else (f"{context}\n{text}", context, text)


def passage(collection: str, row: Mapping[str, Any]) -> Passage:
    """Make a passage, without a score, of a row with its document's title, uri and metadata."""
    if row["own_metadata"]:
        return _own_passage(collection, row)
    stored = row["stored"]
    return Passage(
        chunk_id=row["id"],
        document_id=row["document_id"],
        collection=collection,
        ordinal=row["ordinal"] or 0,
        text=stored.get("text", ""),
        title=row["title"],
        uri=row["uri"],
        headings=tuple(stored.get("headings", ())),
        places=_places(stored.get("places", ())),
        elements=tuple(stored.get("elements", ())),
        language=row["language"],
        metadata={} if row["document_metadata"] is None else row["document_metadata"],
    )


def _own_passage(collection: str, row: Mapping[str, Any]) -> Passage:
    """Make a passage of a node's row: its keys are anybody's, so none is taken for granted."""
    stored = row["stored"]
    page = stored.get("page")
    is_page = isinstance(page, int) and not isinstance(page, bool) and page > 0
    return Passage(
        chunk_id=row["id"],
        document_id=row["document_id"],
        collection=collection,
        ordinal=row["ordinal"] or 0,
        text=own_text(stored),
        title=_text(stored.get("title")),
        uri=_text(stored.get("uri")),
        places=(Place(page),) if is_page else (),
        language=row["language"],
        metadata={name: value for name, value in stored.items() if name not in LAYOUT_KEYS},
    )


def own_text(stored: Mapping[str, Any]) -> str:
    """Return the text of a node's row; the stock SupabaseVectorStore keeps it inside the node."""
    node = stored.get("_node_content")
    if "text" in stored or not isinstance(node, str):
        return _text(stored.get("text")) or ""
    try:
        content = json.loads(node)
        return content.get("text") or content.get("text_resource", {}).get("text") or ""
    except (ValueError, AttributeError):
        return ""  # some other client's key of that name


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _places(stored: Sequence[tuple[int, Sequence[float] | None]]) -> tuple[Place, ...]:
    return tuple(
        Place(page, None if box is None else (box[0], box[1], box[2], box[3]))
        for page, box in stored
    )

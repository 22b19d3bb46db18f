"""How a chunk is laid out in its row, both ways. The columns are described in collection.sql."""

from collections.abc import Mapping, Sequence
from typing import Any

from ragcore.model import Chunk, Passage, Place


def stored_metadata(chunk: Chunk, document_id: str) -> dict[str, Any]:
    """Return what `metadata` of an ingested chunk holds: flat, as the stock clients like it."""
    page = chunk.page
    found = {
        "text": chunk.text,
        "doc_id": document_id,
        "headings": list(chunk.headings),
        "elements": list(chunk.elements),
        "places": [[place.page, place.box] for place in chunk.places],
        "page": page,
        "start": chunk.start,
        "end": chunk.end,
    }
    return {name: value for name, value in found.items() if value is not None and value != []}


def context_of(chunk: Chunk) -> str | None:
    """Return what `embedding_text` says beyond the text, so that its words are found as well."""
    context = chunk.embedding_text.removesuffix(chunk.text).strip()
    return context or None


def passage(collection: str, row: Mapping[str, Any]) -> Passage:
    """Make a passage, without a score, of a row with its document's title, uri and metadata."""
    stored = row["stored"]
    own = {} if row["document_metadata"] is None else row["document_metadata"]
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
        metadata=_without_text(stored) if row["own_metadata"] else own,
    )


def _places(stored: Sequence[tuple[int, Sequence[float] | None]]) -> tuple[Place, ...]:
    return tuple(
        Place(page, None if box is None else (box[0], box[1], box[2], box[3]))
        for page, box in stored
    )


def _without_text(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name != "text"}

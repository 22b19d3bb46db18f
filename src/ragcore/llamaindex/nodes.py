"""Passages and chunks as LlamaIndex nodes, nodes as stored rows, and each of them back.

A passage's provenance becomes the node's metadata (`document_id`, `page`, `bbox`, `headings` …), so
that LlamaIndex's filters and postprocessors can use it. It is kept out of what is embedded, and
a language model sees only title, headings and page beside the text.

A row keeps a node's text once, in `metadata.text`, and its metadata once, at the top level: the
layout that stock `vecs` filters and `SupabaseVectorStore` reads (docs/decisions/0002). What else
a node carries goes into the string `node_info`, which the stock reader takes out of the metadata.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from ragcore.adapters.postgres.layout import LAYOUT_KEYS, source_relationship
from ragcore.adapters.postgres.nodes import NodeRow
from ragcore.errors import InvalidInput
from ragcore.model import Box, Chunk, Explanation, Metadata, Part, Passage, Place

_PROVENANCE = (
    "document_id",
    "collection",
    "ordinal",
    "title",
    "uri",
    "language",
    "page",
    "bbox",
    "headings",
    "places",
    "elements",
    "explanation",
    "parts",
)
"""Metadata keys that a passage's own fields take, whatever the document's metadata says."""
_HIDDEN = "document_metadata"
"""Metadata key for what the document's metadata says under those keys."""
_SHOWN_TO_MODELS = ("title", "headings", "page")

# --- passages and chunks -------------------------------------------------------------------


def node_from_passage(passage: Passage) -> TextNode:
    """Return the passage as a node whose source is its document; `passage_from_node` undoes it."""
    provenance = {
        "document_id": passage.document_id,
        "collection": passage.collection,
        "ordinal": passage.ordinal,
        "title": passage.title,
        "uri": passage.uri,
        "language": passage.language,
        **_standing(passage.headings, passage.places, passage.elements),
        "explanation": asdict(passage.explanation) if passage.explanation else None,
        "parts": [asdict(part) for part in passage.parts] or None,
    }
    return _node(passage.chunk_id, passage.text, passage.document_id, passage.metadata, provenance)


def node_from_chunk(
    chunk: Chunk, *, document_id: str, collection: str, metadata: Metadata | None = None
) -> TextNode:
    """Return a chunk that is in no store yet as a node, for LlamaIndex's own pipelines."""
    provenance = {
        "document_id": document_id,
        "collection": collection,
        "ordinal": chunk.ordinal,
        "language": chunk.language,
        **_standing(chunk.headings, chunk.places, chunk.elements),
    }
    node = _node(chunk.chunk_id, chunk.text, document_id, metadata or {}, provenance)
    node.start_char_idx, node.end_char_idx = chunk.start, chunk.end
    return node


def scored_node(passage: Passage) -> NodeWithScore:
    """Return the passage as a search result of LlamaIndex."""
    return NodeWithScore(node=node_from_passage(passage), score=passage.score)


def passage_from_node(found: NodeWithScore) -> Passage:
    """Return a search result of LlamaIndex as a passage.

    A node of another origin (another index, another reader) becomes a passage too: its source is
    its document, all its metadata the document's, its page `page` or `page_label`. Its score is
    brought into 0…1, since rerankers give any number.
    """
    node, metadata = found.node, dict(found.node.metadata)
    score = min(1.0, max(0.0, found.score or 0.0))
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    if not _is_provenance(metadata):
        return Passage(
            chunk_id=node.node_id,
            document_id=node.ref_doc_id or node.node_id,
            collection="",
            ordinal=0,
            text=text,
            score=score,
            places=_foreign_places(metadata),
            metadata=metadata,
        )
    own = {key: metadata.pop(key, None) for key in _PROVENANCE}
    return Passage(
        chunk_id=node.node_id,
        document_id=own["document_id"],
        collection=own["collection"],
        ordinal=own["ordinal"],
        text=text,
        score=score,
        title=own["title"],
        uri=own["uri"],
        headings=tuple(own["headings"] or ()),
        places=_places(own),
        elements=tuple(own["elements"] or ()),
        language=own["language"],
        metadata=metadata | metadata.pop(_HIDDEN, {}),
        explanation=_explanation(own["explanation"]),
        parts=tuple(map(_part, own["parts"] or ())),
    )


def _node(
    chunk_id: str,
    text: str,
    document_id: str,
    document_metadata: Metadata,
    provenance: Mapping[str, Any],
) -> TextNode:
    own = {key: value for key, value in provenance.items() if value is not None}
    reserved = {*_PROVENANCE, _HIDDEN}
    hidden = {key: value for key, value in document_metadata.items() if key in reserved}
    metadata = {**document_metadata, **own}
    for key in hidden.keys() - own.keys():
        del metadata[key]
    if hidden:
        metadata[_HIDDEN] = hidden
    return TextNode(
        id_=chunk_id,
        text=text,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=[key for key in metadata if key not in _SHOWN_TO_MODELS],
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(
                node_id=document_id, node_type=ObjectType.DOCUMENT
            )
        },
    )


def _standing(
    headings: Sequence[str], places: Sequence[Place], elements: Sequence[str]
) -> dict[str, Any]:
    """Say where a text stands; `page` and `bbox` are the first place's, `places` only for more."""
    first = places[0] if places else None
    return {
        "page": first.page if first else None,
        "bbox": list(first.box) if first and first.box else None,
        "headings": list(headings) or None,
        "places": [[place.page, place.box and list(place.box)] for place in places]
        if len(places) > 1
        else None,
        "elements": list(elements) or None,
    }


def _is_provenance(metadata: Mapping[str, Any]) -> bool:
    return (
        isinstance(metadata.get("document_id"), str)
        and isinstance(metadata.get("collection"), str)
        and isinstance(metadata.get("ordinal"), int)
    )


def _places(own: Mapping[str, Any]) -> tuple[Place, ...]:
    if own["places"]:
        return tuple(Place(page, _box(box)) for page, box in own["places"])
    return () if own["page"] is None else (Place(own["page"], _box(own["bbox"])),)


def _foreign_places(metadata: Mapping[str, Any]) -> tuple[Place, ...]:
    page = metadata.get("page", metadata.get("page_label"))  # as LlamaIndex's PDF readers say it
    if isinstance(page, str) and page.isdecimal():
        page = int(page)
    is_number = isinstance(page, int) and not isinstance(page, bool)
    return (Place(page),) if is_number and page > 0 else ()


def _box(values: Sequence[float] | None) -> Box | None:
    if values is None:
        return None
    left, top, right, bottom = values
    return (left, top, right, bottom)


def _part(values: Mapping[str, Any]) -> Part:
    places = tuple(Place(place["page"], _box(place["box"])) for place in values["places"])
    return Part(values["chunk_id"], values["start"], values["end"], places)


def _explanation(values: Mapping[str, Any] | None) -> Explanation | None:
    if values is None:
        return None
    return Explanation(**{**values, "matched": tuple(values["matched"])})


# --- rows ----------------------------------------------------------------------------------


def row_from_node(node: BaseNode) -> NodeRow:
    """Return what is stored of a node; `node_from_row` gives an equal node, without embedding.

    The node's metadata stands at the top level; keys that the layout needs go to `node_info`.
    NUL and lone surrogates, which PostgreSQL cannot store, are dropped; NaN becomes null.
    Raises InvalidInput for a node without an embedding.
    """
    if node.embedding is None:
        raise InvalidInput(
            f"node {node.node_id!r} has no embedding: add it through an index or a pipeline with "
            "an embedding model, or set node.embedding"
        )
    content = _storable(node.model_dump(mode="json", exclude_defaults=True, exclude={"embedding"}))
    metadata, text = content.pop("metadata", {}), _take_text(content)
    _drop_copies(content.get("relationships", {}), metadata)
    hidden = {key: metadata.pop(key) for key in LAYOUT_KEYS if key in metadata}
    info = {
        "start": getattr(node, "start_char_idx", None),
        "end": getattr(node, "end_char_idx", None),
        "node": content,
        **({"metadata": hidden} if hidden else {}),
    }
    row_metadata = {
        **metadata,
        **_source(node.ref_doc_id),
        "text": text,
        "node_info": json.dumps(info, ensure_ascii=False),
    }
    return NodeRow(
        node_id=content["id_"],
        document_id=node.ref_doc_id,
        text=text,
        metadata=row_metadata,
        vector=node.embedding,
        context=_storable(node.get_metadata_str(MetadataMode.EMBED)) or None,
    )


def node_from_row(row: NodeRow) -> BaseNode:
    """Return the node that was stored, by us or by a stock client, with its own class."""
    metadata = dict(row.metadata)
    if _json_object(metadata.get("_node_content")):  # written by stock SupabaseVectorStore
        return metadata_dict_to_node(metadata, text=row.text)
    info = _json_object(metadata.get("node_info"))
    if "node" not in info:  # written by stock vecs, whatever its metadata
        return _plain_node(row)
    own = {key: value for key, value in metadata.items() if key not in LAYOUT_KEYS}
    own |= info.get("metadata", {})
    content = {**info["node"], "id_": row.node_id, "metadata": own}
    for related in _related(content.get("relationships", {})):
        related.setdefault("metadata", own)
    kind = {"_node_content": json.dumps(content), "_node_type": content.get("class_name")}
    return metadata_dict_to_node(kind, text=row.text)


def _take_text(content: dict[str, Any]) -> str:
    """Remove the text of a node's dump, of either generation of node classes, and return it."""
    resource = content.get("text_resource") or {}
    text = content.pop("text", None) or resource.pop("text", None) or ""
    if not any(value is not None for value in resource.values()):
        content.pop("text_resource", None)
    return str(text)


def _drop_copies(relationships: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Leave out the metadata of related nodes where it only repeats the node's own."""
    for related in _related(relationships):
        if related.get("metadata", {}) == metadata:
            related.pop("metadata", None)
        else:
            related.setdefault("metadata", {})


def _related(relationships: Mapping[str, Any]) -> list[dict[str, Any]]:
    one_or_more = relationships.values()
    return [
        related
        for value in one_or_more
        for related in (value if isinstance(value, list) else [value])
    ]


def _source(document_id: str | None) -> dict[str, str]:
    """Name the source document in each way the stock reader and its filters look for it."""
    if document_id is None:
        return {}
    return {
        "document_id": document_id,
        "doc_id": document_id,
        "ref_doc_id": document_id,
        "relationships": source_relationship(document_id),
    }


def _plain_node(row: NodeRow) -> TextNode:
    metadata = {key: value for key, value in row.metadata.items() if key != "text"}
    node = TextNode(id_=row.node_id, text=row.text, metadata=metadata)
    if row.document_id is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=row.document_id)
    return node


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "ignore").decode()
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        return {}
    try:
        decoded = json.loads(value)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}

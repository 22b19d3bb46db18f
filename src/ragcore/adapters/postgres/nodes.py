"""Rows that LlamaIndex nodes are kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One row of a collection's table as a node sees it."""

    node_id: str
    document_id: str | None
    """The node's source document; None for a node without one."""
    text: str
    metadata: Mapping[str, Any]
    """The row's `metadata` column: the node's own metadata beside keys of the layout."""
    vector: Sequence[float] | None = None

"""Names that are derived, so that repeating an upload never duplicates it."""

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote, urlsplit

from anyascii import anyascii

from ragcore.errors import InvalidInput
from ragcore.model import EmbeddingSpec, Metadata

_DOCUMENT_ID = re.compile(r"[A-Za-z0-9._:~-]{1,200}")
_COLLECTION = re.compile(r"[a-z0-9_-]{1,48}")
_MAX_METADATA_BYTES = 64 * 1024
_MAX_DEPTH = 16


def id_from_uri(uri: str) -> str:
    """Return the id of the document at `uri`: readable, stable, one path segment.

    The last segment in Latin letters, `~`, and 64 bits of the URI's hash.
    """
    name = anyascii(unquote(urlsplit(uri).path).rstrip("/").rpartition("/")[2])
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    digest = blake2b(uri.encode(), digest_size=8).hexdigest()
    return f"{readable}~{digest}" if readable else digest


def id_from_bytes(sha256: bytes) -> str:
    """Return the id of an upload without a name of its own: `sha256:` and 32 hex digits."""
    return f"sha256:{sha256.hex()[:32]}"


def checked_document_id(document_id: str) -> str:
    """Return it, or raise InvalidInput where it can't be one path segment."""
    if not _DOCUMENT_ID.fullmatch(document_id):
        raise InvalidInput(
            f"document_id {document_id[:80]!r} must be 1 to 200 ASCII letters, digits or . _ : ~ -"
        )
    return document_id


def checked_collection(name: str) -> str:
    """Return it, which may then stand in SQL between double quotes, or raise InvalidInput."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is no name for a collection: use 1 to 48 of a-z, 0-9, '_' and '-'"
        )
    return name


def checked_metadata(metadata: Mapping[str, Any]) -> Metadata:
    """Return a copy that JSON can hold, or raise InvalidInput.

    Refused: what is not JSON, NaN and infinities, NUL characters and lone surrogates (PostgreSQL
    stores neither), nesting over 16 levels, more than 64 KiB.
    """
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"metadata must be a JSON object: {error}") from error
    if size > _MAX_METADATA_BYTES:
        raise InvalidInput(f"metadata takes {size} bytes; at most {_MAX_METADATA_BYTES} are kept")
    if "\\u0000" in text and _holds_nul(metadata):
        raise InvalidInput("metadata holds a NUL character, which can't be stored")
    if _depth(metadata) > _MAX_DEPTH:
        raise InvalidInput(f"metadata is nested deeper than {_MAX_DEPTH} levels")
    copy: Metadata = json.loads(text)
    return copy


def clean_title(title: str | None) -> str | None:
    """Return the title on one line, without control characters, at most 500 long."""
    if title is None:
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in title).split())
    return line[:500] or None


def clean_filename(name: str | None) -> str | None:
    """Return a name that can be stored: one line, at most its last 255 characters."""
    if name is None:
        return None
    return "".join(c if c.isprintable() else " " for c in name).strip()[-255:] or None


def pipeline_fingerprint(converter: str, embedding: EmbeddingSpec) -> str:
    """Name all that decides a version's chunks and vectors: another value means other rows."""
    parts = (
        converter,
        embedding.model,
        embedding.digest or "",
        str(embedding.dimension),
        embedding.document_prefix,
    )
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(_holds_nul(k) or _holds_nul(v) for k, v in value.items())
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


def _depth(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(_depth, value), default=0)
    return 0

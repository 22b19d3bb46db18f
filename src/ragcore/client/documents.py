"""The documents that are there: found, looked into, changed, deleted."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from ragcore.client.bodies import JsonBody, json_text
from ragcore.client.caller import Caller, get, json_of, query_of, segment
from ragcore.client.calls import call, stream
from ragcore.client.exchange import Item, NoAnswer, Request, Response, Steps, Stream, read
from ragcore.client.problems import unanswered
from ragcore.client.values import (
    DocumentChunk,
    DocumentDetail,
    chunk_of,
    document_detail_of,
    jobs_of,
    made,
)
from ragcore.model import DeletionReceipt, Document, Job, PageImage

_FETCH_SECONDS: Final = 300.0
"""For a server that is slow to send its page."""


class Documents(Caller):
    """Documents, over HTTP; each is found in its collection, the service's default one where none
    is named.

    A deletion is not sent again when its answer was lost: the second receipt would not tell what
    the first removed.
    """

    @stream
    def documents(
        self,
        *,
        collection: str | None = None,
        filters: Mapping[str, Any] | None = None,
        uri: str | None = None,
        doubtful: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> Stream[Document]:
        """Yield documents in order of their ids: at most `limit`, those after the id `after`.

        `uri`: only the one that came from there; `doubtful`: only those that were badly read.
        Raises CollectionNotFound, InvalidFilter.
        """
        query = {
            "collection": collection,
            "filter": None if filters is None else json_text(filters),
            "uri": uri,
            "doubtful": doubtful or None,
        }
        yield from self._pages(
            "/documents",
            "documents",
            lambda told: made(Document, told),
            query=query,
            limit=limit,
            after=after,
        )

    @call
    def document(self, document_id: str, *, collection: str | None = None) -> Steps[DocumentDetail]:
        """Tell what is known of a document and of its versions. Raises DocumentNotFound."""
        return document_detail_of(
            (yield from self._told(get(_path(document_id), collection=collection)))
        )

    @call
    def refresh(self, document_id: str, *, collection: str | None = None) -> Steps[Job]:
        """Have the URL that a document came from fetched again, and return the job of it.

        What has not changed there costs next to nothing. Raises DocumentNotFound, InvalidInput for
        a document of no URL, ForbiddenUrl, SourceUnavailable …
        """
        request = Request(
            "POST",
            f"{_path(document_id)}/refresh",
            query=query_of({"collection": collection}),
            is_repeatable=True,
            answer_seconds=max(self.timeout_seconds, _FETCH_SECONDS),
        )
        return jobs_of((yield from self._told(request)))[0]

    @call
    def update(
        self,
        document_id: str,
        *,
        collection: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> Steps[Document]:
        """Change a document's title, metadata or last day; nothing is embedded again.

        `metadata` replaces the whole object; `never_expires` takes a last day away. Raises
        DocumentNotFound, InvalidInput.
        """
        changes: dict[str, Any] = {}
        if title is not None:
            changes["title"] = title
        if metadata is not None:
            changes["metadata"] = dict(metadata)
        if expires_at is not None:
            changes["expires_at"] = expires_at.astimezone().isoformat()
        if never_expires:
            changes["expires_at"] = None
        request = Request(
            "PATCH",
            _path(document_id),
            query=query_of({"collection": collection}),
            body=JsonBody(changes),
            is_repeatable=True,
        )
        return made(Document, (yield from self._told(request)))

    @call
    def delete(self, document_id: str, *, collection: str | None = None) -> Steps[DeletionReceipt]:
        """Remove a document, its chunks and files. Raises DocumentNotFound."""
        request = Request("DELETE", _path(document_id), query=query_of({"collection": collection}))
        return made(DeletionReceipt, (yield from self._told(request)))

    @call
    def delete_matching(
        self,
        filters: Mapping[str, Any],
        *,
        collection: str | None = None,
        dry_run: bool = False,
    ) -> Steps[DeletionReceipt]:
        """Remove the documents that match. With `dry_run` nothing is removed, and the receipt
        tells what would be. Raises CollectionNotFound, InvalidFilter."""
        wanted: dict[str, Any] = {"filter": dict(filters), "dry_run": dry_run}
        if collection is not None:
            wanted["collection"] = collection
        request = Request("POST", "/documents/delete", body=JsonBody(wanted), is_repeatable=dry_run)
        return made(DeletionReceipt, (yield from self._told(request)))

    # --- what was understood of it -------------------------------------------------------------

    @stream
    def chunks(
        self,
        document_id: str,
        *,
        collection: str | None = None,
        first: int = 0,
        limit: int | None = None,
    ) -> Stream[DocumentChunk]:
        """Yield a document's chunks in reading order, from the one numbered `first`, from 0.

        Raises DocumentNotFound.
        """
        yield from self._pages(
            f"{_path(document_id)}/chunks",
            "chunks",
            chunk_of,
            query={"collection": collection},
            limit=limit,
            after=first or None,
        )

    @call
    def markdown(self, document_id: str, *, collection: str | None = None) -> Steps[str]:
        """Return a document as it was understood. Raises DocumentNotFound, BlobNotFound."""
        answer = yield from self._content(document_id, collection, "markdown")
        return answer.body.decode(errors="replace")

    @call
    def docling(self, document_id: str, *, collection: str | None = None) -> Steps[Any]:
        """Return a document as the JSON of a DoclingDocument, for `DoclingDocument(**…)`.

        Raises DocumentNotFound, BlobNotFound.
        """
        return json_of((yield from self._content(document_id, collection, "json")).body)

    @stream
    def original(self, document_id: str, *, collection: str | None = None) -> Stream[bytes]:
        """Yield the file that a document was made of, in pieces.

        Raises DocumentNotFound, BlobNotFound, Unavailable when it breaks off.
        """
        request = get(f"{_path(document_id)}/content", format="original", collection=collection)
        yield from self._send(replace(request, is_streamed=True))
        while piece := (yield from read()):
            if isinstance(piece, NoAnswer):
                raise unanswered(piece)
            yield Item(piece)

    @call
    def page_image(
        self,
        document_id: str,
        page: int,
        *,
        collection: str | None = None,
        dots_per_inch: int = 110,
    ) -> Steps[PageImage]:
        """Return a page, counted from 1, as a picture: the page that a citation points at.

        Raises DocumentNotFound, BlobNotFound, ConversionError, and PageNotFound, also for a
        document that is neither a PDF nor a picture.
        """
        path = f"{_path(document_id)}/pages/{int(page)}.png"
        answer = yield from self._send(get(path, collection=collection, dpi=dots_per_inch))
        return PageImage(
            answer.body,
            float(answer.headers.get("x-page-width", 0)),
            float(answer.headers.get("x-page-height", 0)),
        )

    def _content(self, document_id: str, collection: str | None, kind: str) -> Steps[Response]:
        return self._send(get(f"{_path(document_id)}/content", format=kind, collection=collection))


def _path(document_id: str) -> str:
    return f"/documents/{segment(document_id)}"

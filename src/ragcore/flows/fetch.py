"""URL → stored blob, queued job; the same URL again → what has changed there, if anything."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from ragcore.errors import BlobNotFound, DocumentTooLarge, InvalidInput
from ragcore.flows.submit import StoredUpload, Submit, Upload, check, original_key
from ragcore.model import Job
from ragcore.ports import BlobStore, Catalog, KnownPage, OpenPage, Pages
from ragcore.steps.identity import id_from_uri


@dataclass(frozen=True, slots=True)
class Fetch:
    """Make a document of what a URL leads to, and queue its job.

    Fetched here and not by a worker: who is answered with a job knows that its bytes are durable,
    and who named a URL that can't be had is told so at once. What a kill leaves is `Submit`'s: at
    most a file that no version refers to.
    """

    pages: Pages
    catalog: Catalog
    blobs: BlobStore
    submit: Submit
    refuse_type: Callable[[str | None], None]
    """Raises UnsupportedFormat for a MIME type that can't be a document's."""
    refuse_unreadable: Callable[[bytes], None]
    """The same for the beginning of the bytes."""

    async def __call__(
        self,
        url: str,
        upload: Upload,
        *,
        idempotency_key: str | None = None,
        idempotency_scope: str = "",
        asked: bytes | None = None,
    ) -> Job:
        """Fetch a URL, unless its server says that what is in place is what it still has.

        `asked` is a hash of the request, which goes with its idempotency key. Raises ForbiddenUrl,
        InvalidInput, UnsupportedFormat, DocumentTooLarge, SourceUnavailable (retry later), and
        what `Submit` raises.
        """
        uri = self.pages.canonical(url)
        upload = replace(upload, uri=uri, document_id=upload.document_id or id_from_uri(uri))
        check(upload)
        known = await self._known(upload)
        fetched = await self._fetched(upload, known)
        if fetched is None:
            assert known is not None  # only a page that is known can be unchanged
            upload = _described(upload, known)
            if idempotency_key is None and (settled := await self._settled(upload, known)):
                return settled
            fetched = await self._copied(upload, known) or await self._fetched(upload, None)
        assert fetched is not None
        return await self.submit.record(
            *fetched,
            idempotency_key=idempotency_key,
            idempotency_scope=idempotency_scope,
            asked=asked,
        )

    async def again(
        self,
        collection: str,
        document_id: str,
        *,
        submitted_by: str | None = None,
        request_id: str | None = None,
    ) -> Job:
        """Fetch the URL of a document again; what was said of the document stays.

        Raises DocumentNotFound, InvalidInput for a document that did not come from a URL, and as a
        call does.
        """
        document = await self.catalog.document(collection, document_id)
        if not is_url(document.uri):
            raise InvalidInput(
                f"document {document_id!r} came from {document.uri!r}, which can't be fetched again"
                if document.uri
                else f"document {document_id!r} did not come from a URL"
            )
        known = await self.catalog.page(collection, document_id)
        upload = Upload(
            collection,
            document_id,
            title=None if known is None else known.title,
            submitted_by=submitted_by,
            request_id=request_id,
        )
        return await self(str(document.uri), upload)

    async def _known(self, upload: Upload) -> KnownPage | None:
        """Return what is in place, if it was fetched from the same URL."""
        assert upload.document_id is not None
        known = await self.catalog.page(upload.collection, upload.document_id)
        return known if known is not None and known.marks.uri == upload.uri else None

    async def _fetched(
        self, upload: Upload, known: KnownPage | None
    ) -> tuple[Upload, StoredUpload] | None:
        """Store what the URL leads to; None: it is what is known."""
        assert upload.uri is not None
        async with self.pages.get(upload.uri, known=None if known is None else known.marks) as page:
            if page is None:
                return None
            self.refuse_type(page.marks.mime_type)
            self._refuse_large(page)
            stored = await self.submit.store(self._readable(page.pieces))
        return (
            replace(
                upload,
                filename=upload.filename or page.filename,
                mime_type=page.marks.mime_type,
                marks=page.marks,
            ),
            stored,
        )

    async def _settled(self, upload: Upload, known: KnownPage) -> Job | None:
        """Answer without storing anything; None when there is work, by another pipeline say."""
        return await self.submit.settle(upload, sha256=known.sha256, size=known.size_bytes)

    async def _copied(self, upload: Upload, known: KnownPage) -> tuple[Upload, StoredUpload] | None:
        """Take the bytes from what is stored; None when something newer has replaced them."""
        try:
            pieces = self.blobs.open(original_key(known.version_id))
            return upload, await self.submit.store(pieces)
        except BlobNotFound:
            return None

    def _refuse_large(self, page: OpenPage) -> None:
        if (page.size_bytes or 0) > self.submit.max_bytes:
            raise DocumentTooLarge(
                f"the document has {page.size_bytes} bytes, the limit is {self.submit.max_bytes}"
            )

    async def _readable(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        is_beginning = True
        async for piece in pieces:
            if is_beginning:
                self.refuse_unreadable(piece)
                is_beginning = False
            yield piece


def is_url(uri: str | None) -> bool:
    """Say whether a document from there can be fetched."""
    return uri is not None and uri.lower().startswith(("http://", "https://"))


def _described(upload: Upload, known: KnownPage) -> Upload:
    """Describe known bytes as they were when they came."""
    return replace(
        upload,
        filename=upload.filename or known.filename,
        mime_type=known.marks.mime_type,
        marks=known.marks,
    )

"""Errors ragcore raises on purpose.

RagError
├── NotFound            CollectionNotFound, DocumentNotFound, PageNotFound, JobNotFound,
│                       BlobNotFound, KeyNotFound, BucketNotFound, ObjectGone,
│                       TraceNotFound, GenerationNotFound
├── Rejected            InvalidInput, InvalidFilter, UnsupportedFormat, DocumentTooLarge,
│                       ForbiddenUrl, ContextOverflow, UnfitModel
├── AccessDenied        Unauthenticated, Forbidden
├── ConversionError     ConversionFailed, ConversionTimeout, PasswordRequired, NoTextFound
├── Conflict            CollectionMismatch, IdempotencyConflict, LeaseLost, NotRetryable,
│                       DeletionRefused, ReindexUnderWay, RollbackLoses, GenerationSwitched
├── Unavailable         StoreUnavailable, BlobsUnavailable, QueueUnavailable, ModelUnavailable
│                       (ModelMissing, ModelTimeout, ModelOutOfMemory), SourceUnavailable,
│                       StorageFull, RateLimited, Busy
└── Unsupported         UnsupportedMachine, UnsupportedServer, MissingExtra, NotConfigured,
                        TracingOff

Every class has a public, stable `code` (listed in docs/reference/errors.md) and says whether the
same call, unchanged, may succeed later. Messages name the offending value and what to do next.
"""

from typing import ClassVar


class RagError(Exception):
    """Base of the tree: catch it to handle every expected failure."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    request_id: str | None = None
    """Of the request that failed, where it was one to a service: its log has the same id."""


# --- what was asked for is not there -------------------------------------------------------


class NotFound(RagError):
    """The thing named by the caller does not exist."""

    code = "not_found"


class CollectionNotFound(NotFound):
    """No collection of that name."""

    code = "collection_not_found"


class DocumentNotFound(NotFound):
    """No document of that id in that collection."""

    code = "document_not_found"


class PageNotFound(NotFound):
    """The document has no page of that number, or its format none that can be drawn."""

    code = "page_not_found"


class JobNotFound(NotFound):
    """No job of that id."""

    code = "job_not_found"


class BlobNotFound(NotFound):
    """A stored file is gone: deleted, or never written."""

    code = "blob_not_found"


class KeyNotFound(NotFound):
    """No API key of that id."""

    code = "key_not_found"


class BucketNotFound(NotFound):
    """No bucket of that name is configured, or its server has none."""

    code = "bucket_not_found"


class ObjectGone(NotFound):
    """The object was deleted from its bucket before it was fetched."""

    code = "object_gone"


class GenerationNotFound(NotFound):
    """The collection has no reindex to switch to, or no generation to go back to."""

    code = "generation_not_found"


class TraceNotFound(NotFound):
    """No answer given here has that trace id."""

    code = "trace_not_found"


# --- the input is at fault -----------------------------------------------------------------


class Rejected(RagError):
    """The input can't be accepted as it is; change it before trying again."""

    code = "rejected"


class InvalidInput(Rejected):
    """A value is out of its range or of the wrong form."""

    code = "invalid_input"


class InvalidFilter(InvalidInput):
    """A filter names an unknown operator or compares what can't be compared."""

    code = "invalid_filter"


class UnsupportedFormat(Rejected):
    """The bytes are of no format that can be read here."""

    code = "unsupported_format"


class DocumentTooLarge(Rejected):
    """The document is over a limit of size, pages or expansion."""

    code = "document_too_large"


class ForbiddenUrl(Rejected):
    """The URL points at an address that must not be fetched (private, loopback, link-local …)."""

    code = "forbidden_url"


class ContextOverflow(Rejected):
    """The text is longer than the model reads at once."""

    code = "context_overflow"


class UnfitModel(Rejected):
    """The embedding model can't serve the language of the text, and the collection is strict."""

    code = "unfit_model"


# --- the caller may not ----------------------------------------------------------------------


class AccessDenied(RagError):
    """The caller may not do this."""

    code = "access_denied"


class Unauthenticated(AccessDenied):
    """No API key was sent, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(AccessDenied):
    """The API key is good, and not for this: it lacks the scope or the collection."""

    code = "forbidden"


# --- the document could not be read --------------------------------------------------------


class ConversionError(RagError):
    """The document was accepted, and could not be turned into text."""

    code = "conversion_failed"


class ConversionFailed(ConversionError):
    """The parser refused the file or crashed on it."""

    code = "conversion_failed"


class ConversionTimeout(ConversionError):
    """The parser ran over its time or its memory and was killed."""

    code = "conversion_timeout"


class PasswordRequired(ConversionError):
    """The file is encrypted."""

    code = "password_required"


class NoTextFound(ConversionError):
    """The file was read, and holds no text: empty, or a scan without OCR."""

    code = "no_text_found"


# --- somebody else was there first ---------------------------------------------------------


class Conflict(RagError):
    """The call contradicts what is stored."""

    code = "conflict"


class CollectionMismatch(Conflict):
    """The collection was built with another embedding model or chunker than the one configured."""

    code = "collection_mismatch"


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another body."""

    code = "idempotency_conflict"


class LeaseLost(Conflict):
    """The job was cancelled, or taken over by another worker; the work so far is dropped."""

    code = "lease_lost"


class NotRetryable(Conflict):
    """The job can't be run again: it has not failed, or its files or its document are gone."""

    code = "not_retryable"


class DeletionRefused(Conflict):
    """So much of a bucket is missing that it looks like a mistake; nothing was deleted."""

    code = "deletion_refused"


class ReindexUnderWay(Conflict):
    """The collection is moving to another embedding model or chunker already, or is ready to."""

    code = "reindex_under_way"


class RollbackLoses(Conflict):
    """What came since the switch is not in the generation before; going back would lose it."""

    code = "rollback_loses"


class GenerationSwitched(Conflict):
    """The collection was switched to another embedding model or chunker meanwhile: try again."""

    code = "generation_switched"
    retryable = True


# --- what we depend on is away -------------------------------------------------------------


class Unavailable(RagError):
    """Something we depend on did not answer; `__cause__` holds its own error. Retry later."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """PostgreSQL is away, or refused for a reason that passes."""

    code = "store_unavailable"


class BlobsUnavailable(Unavailable):
    """The blob store is away, or its disk is full."""

    code = "blobs_unavailable"


class QueueUnavailable(Unavailable):
    """Redis is away. Nothing is lost: the sweep finds the job in PostgreSQL."""

    code = "queue_unavailable"


class ModelUnavailable(Unavailable):
    """The embedding or language model did not answer."""

    code = "model_unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When it is worth asking again, where that is known: until then nobody is asked."""


class ModelTimeout(ModelUnavailable):
    """The embedding or language model did not answer in time."""

    code = "model_timeout"


class ModelOutOfMemory(ModelUnavailable):
    """The model does not fit into what memory its server has left."""

    code = "model_out_of_memory"


class ModelMissing(ModelUnavailable):
    """The server of models is there and lacks the one that is configured."""

    code = "model_missing"

    def __init__(self, message: str, *, model: str = "") -> None:
        super().__init__(message)
        self.model = model


class SourceUnavailable(Unavailable):
    """The server that a URL points at, or of a bucket, is away, failed, or took too long."""

    code = "source_unavailable"


class Busy(Unavailable):
    """As much of this as is done at once is under way already."""

    code = "busy"


class StorageFull(Unavailable):
    """Too little room is left on the disk to take documents; questions are still answered."""

    code = "storage_full"


class RateLimited(Unavailable):
    """This key has used up its requests for now; `retry_after_seconds` says until when."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


# --- it can't work here --------------------------------------------------------------------


class Unsupported(RagError):
    """This machine or configuration lacks something; the message says how to add it."""

    code = "unsupported"


class UnsupportedMachine(Unsupported):
    """The embedded servers or models can't run on this machine."""

    code = "unsupported_machine"


class UnsupportedServer(Unsupported):
    """PostgreSQL or its pgvector is too old, or the data directory is another version's."""

    code = "unsupported_server"


class MissingExtra(Unsupported):
    """An optional piece is not installed; the message names the `pip install` that adds it."""

    code = "missing_extra"


class NotConfigured(Unsupported):
    """A setting is missing or contradicts another."""

    code = "not_configured"


class TracingOff(Unsupported):
    """Feedback is kept with traces, and none are made: no Langfuse is configured."""

    code = "tracing_off"

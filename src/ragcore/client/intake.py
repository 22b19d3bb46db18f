"""Documents in."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal
from uuid import uuid4

from ragcore.client.bodies import (
    FilePart,
    FormBody,
    InMemory,
    JsonBody,
    OnDisk,
    OpenFile,
    json_text,
)
from ragcore.client.caller import Caller, given
from ragcore.client.calls import call
from ragcore.client.exchange import Body, Request, Steps
from ragcore.client.values import Converted, converted_of, jobs_of, made
from ragcore.model import Job

Source = str | Path | bytes | BinaryIO
"""A path, a URL, bytes, or a file opened for reading in binary."""

_FETCH_SECONDS: Final = 300.0
"""For a URL to be fetched, and for a file to be read by `convert`."""


class Intake(Caller):
    """Documents in, over HTTP.

    An upload is sent under an idempotency key made for it, so that one whose connection breaks is
    sent again and yields one job. Files are read while they are sent, never whole into memory.
    """

    @call
    def ingest(
        self,
        source: Source,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str | None = None,
        callback_url: str | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[Job]:
        """Send a file, or have a URL fetched, and return the job that makes it searchable.

        What is returned is stored durably; `wait` waits for it to be searchable. A text that
        begins like a URL is one, any other is a path; `bytes` are the document itself. Without a
        `document_id` it is derived from the URL, otherwise from the bytes: the same file sent
        again is the same document, a changed one is another. Raises OSError for a file that can't
        be read, UnsupportedFormat, DocumentTooLarge, ForbiddenUrl, Forbidden, Unavailable …
        """
        described = _described(
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            callback_url=callback_url,
            expires_at=expires_at,
        )
        body: Body
        if isinstance(source, str) and "://" in source:
            body = JsonBody(described | given({"url": source, "filename": filename}))
        else:
            body = FormBody(_fields(described), [_part(source, filename)])
        (job,) = yield from self._ingested(body, idempotency_key)
        return job

    @call
    def ingest_files(
        self,
        paths: Sequence[str | Path],
        *,
        collection: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        callback_url: str | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[list[Job]]:
        """Send up to 100 files in one request: all are taken, or none. Raises as `ingest` does."""
        described = _described(
            collection=collection,
            metadata=metadata,
            callback_url=callback_url,
            expires_at=expires_at,
        )
        body = FormBody(_fields(described), [_part(path, None) for path in paths])
        return (yield from self._ingested(body, idempotency_key))

    @call
    def ingest_text(
        self,
        text: str,
        *,
        uri: str | None = None,
        collection: str | None = None,
        document_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str | None = None,
        callback_url: str | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[Job]:
        """Send a text and return its job; `filename="notes.md"` says that it is Markdown.

        `uri` is where it comes from and what it is known by. Raises as `ingest` does.
        """
        described = _described(
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            callback_url=callback_url,
            expires_at=expires_at,
        )
        body = JsonBody(described | given({"text": text, "uri": uri, "filename": filename}))
        (job,) = yield from self._ingested(body, idempotency_key)
        return job

    @call
    def ingest_bucket(
        self,
        bucket: str,
        prefix: str = "",
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        collection: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        delete_missing: bool = False,
        max_delete_share: float | None = None,
        dry_run: bool = False,
    ) -> Steps[Job]:
        """Have a bucket that the service knows listed, and what is new or changed ingested.

        The job ends with the last of its documents; its `counts` tell what was found and done,
        `job_objects` tells it object by object. Asked for again it is the same job while that is
        under way. `delete_missing` deletes the documents whose objects are gone, unless that is a
        larger share than `max_delete_share`. Raises BucketNotFound, Forbidden, InvalidInput …
        """
        wanted = given(
            {
                "bucket": bucket,
                "prefix": prefix,
                "include": list(include),
                "exclude": list(exclude),
                "collection": collection,
                "metadata": None if metadata is None else dict(metadata),
                "delete_missing": delete_missing,
                "max_delete_share": max_delete_share,
                "dry_run": dry_run,
            }
        )
        request = Request("POST", "/ingest/bucket", body=JsonBody(wanted), is_repeatable=True)
        return made(Job, (yield from self._told(request)))

    @call
    def convert(
        self,
        source: str | Path | bytes | BinaryIO,
        *,
        to: Literal["markdown", "json", "text", "chunks"] = "markdown",
        filename: str | None = None,
        password: str | None = None,
    ) -> Steps[Converted]:
        """Read a file and store nothing. Raises UnsupportedFormat, ConversionError …"""
        request = Request(
            "POST",
            "/convert",
            query={"format": to},
            body=FormBody(given({"password": password}), [_part(source, filename)]),
            is_repeatable=True,
            answer_seconds=max(self.timeout_seconds, _FETCH_SECONDS),
        )
        return converted_of((yield from self._told(request)))

    def _ingested(self, body: Body, idempotency_key: str | None) -> Steps[list[Job]]:
        request = Request(
            "POST",
            "/ingest",
            body=body,
            headers={"Idempotency-Key": idempotency_key or uuid4().hex},
            is_repeatable=True,
            answer_seconds=max(self.timeout_seconds, _FETCH_SECONDS),
        )
        return jobs_of((yield from self._told(request)))


def _described(**said: Any) -> dict[str, Any]:
    """Return what is said of a document as JSON has it."""
    described = given(said)
    if "metadata" in described:
        described["metadata"] = dict(described["metadata"])
    if "expires_at" in described:
        described["expires_at"] = said["expires_at"].astimezone().isoformat()
    return described


def _fields(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the same as fields of a form, where an object is a text of JSON."""
    return {
        name: json_text(value) if isinstance(value, dict) else str(value)
        for name, value in described.items()
    }


def _part(source: Source, filename: str | None) -> FilePart:
    if isinstance(source, bytes):
        return FilePart(filename or "upload", InMemory(source))
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return FilePart(filename or path.name, OnDisk(path))
    return FilePart(filename or Path(str(getattr(source, "name", "upload"))).name, OpenFile(source))

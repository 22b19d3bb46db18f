"""Jobs: looked at, waited for, followed, cancelled, run again."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import UUID

from ragcore.client.bodies import JsonBody
from ragcore.client.caller import Caller, JobId, get, given, id_of, object_in
from ragcore.client.calls import call, stream
from ragcore.client.events import Event, EventReader
from ragcore.client.exchange import Item, Pause, Request, Steps, Stream, read
from ragcore.client.problems import error_of_event
from ragcore.client.retrying import PATIENT
from ragcore.client.values import ObjectResult, made
from ragcore.model import Job, JobStatus

_POLL_SECONDS: Final = 30.0
"""How long one request waits for a job; proxies cut longer silence off."""
_AT_ONCE_SECONDS: Final = 1.0
"""An answer quicker than this did not wait: the service is stopping."""
_AGAIN_SECONDS: Final = 0.5
_SILENCE_SECONDS: Final = 60.0
"""Without an event or a sign of life, which comes every 15 seconds, a stream is broken."""


class Jobs(Caller):
    """What became of the documents on their way in.

    Who waits for a job outlasts a service that is stopped and started again, for about five
    minutes: no job is lost by that.
    """

    @call
    def job(self, job: JobId) -> Steps[Job]:
        """Tell how far a job is, or how it ended. Raises JobNotFound."""
        return made(Job, (yield from self._told(get(f"/jobs/{id_of(job)}"))))

    @stream
    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        collection: str | None = None,
        document_id: str | None = None,
        limit: int | None = None,
        after: UUID | str | None = None,
    ) -> Stream[Job]:
        """Yield jobs, the newest first: at most `limit`, those after the job `after`."""
        query = {"status": status, "collection": collection, "document_id": document_id}
        yield from self._pages(
            "/jobs", "jobs", lambda told: made(Job, told), query=query, limit=limit, after=after
        )

    @stream
    def job_objects(self, job: JobId, *, limit: int | None = None) -> Stream[ObjectResult]:
        """Yield what a bucket's job decided about its objects, in order of their keys; those that
        needed nothing are only counted in the job. Raises JobNotFound."""
        yield from self._pages(
            f"/jobs/{id_of(job)}/objects",
            "objects",
            lambda told: made(ObjectResult, told),
            query={},
            limit=limit,
            after=None,
        )

    @call
    def wait(self, job: JobId, *, timeout_seconds: float | None = None) -> Steps[Job]:
        """Wait for a job to end, and return how: its `status` may be `failed`, too.

        Raises TimeoutError when it has not ended within so many seconds, JobNotFound, Unavailable
        when the service is away for minutes.
        """
        return (yield from self._ended(id_of(job), self._deadline(timeout_seconds)))

    @call
    def wait_all(
        self, jobs: Iterable[JobId], *, timeout_seconds: float | None = None
    ) -> Steps[list[Job]]:
        """Wait for several jobs, and return them in their order. Raises as `wait` does."""
        deadline = self._deadline(timeout_seconds)
        ended = []
        for job in jobs:
            ended.append((yield from self._ended(id_of(job), deadline)))  # noqa: PERF401
        return ended

    @stream
    def follow(self, job: JobId) -> Stream[Job]:
        """Yield a job as it is, then whenever it has changed, the last time when it has ended.

        Raises JobNotFound, Unavailable when the service is away for minutes.
        """
        job_id = id_of(job)
        shown = made(Job, (yield from self._told(get(f"/jobs/{job_id}"), retries=PATIENT)))
        yield Item(shown)
        while not shown.is_finished:
            yield from self._send(_events(job_id), retries=PATIENT)
            reader = EventReader()
            while isinstance(piece := (yield from read()), bytes) and piece:
                for event in reader.feed(piece):
                    seen = _seen(event, shown)
                    if seen != shown:
                        yield Item(seen)
                    shown = seen
                if shown.is_finished:
                    return
            yield Pause(_AGAIN_SECONDS)

    @call
    def cancel(self, job: JobId) -> Steps[Job]:
        """Cancel a job; one that has ended stays as it is. Raises JobNotFound."""
        request = Request("POST", f"/jobs/{id_of(job)}/cancel", is_repeatable=True)
        return made(Job, (yield from self._told(request)))

    @call
    def retry(self, job: JobId) -> Steps[Job]:
        """Run a failed or cancelled job again. Raises JobNotFound, NotRetryable."""
        return made(Job, (yield from self._told(Request("POST", f"/jobs/{id_of(job)}/retry"))))

    @call
    def retry_failed(
        self,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        code: str | None = None,
    ) -> Steps[list[Job]]:
        """Run up to 1000 failed jobs again, of one code for example; returns those that will."""
        wanted = given({"collection": collection, "document_id": document_id, "code": code})
        told = yield from self._told(Request("POST", "/jobs/retry", body=JsonBody(wanted)))
        return [made(Job, job) for job in told.get("jobs") or ()]

    def _ended(self, job_id: UUID, deadline: float | None) -> Steps[Job]:
        while True:
            asked_at = self._clock()
            seconds = _POLL_SECONDS
            if deadline is not None:
                seconds = max(0.0, min(seconds, deadline - asked_at))
            request = replace(
                get(f"/jobs/{job_id}", wait=f"{seconds:.3f}"),
                answer_seconds=seconds + self.timeout_seconds,
            )
            job = made(Job, (yield from self._told(request, retries=PATIENT)))
            if job.is_finished:
                return job
            now = self._clock()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"the job {str(job_id)!r} has not ended: it is {job.status}")
            if now - asked_at < min(_AT_ONCE_SECONDS, seconds):
                yield Pause(_AGAIN_SECONDS)

    def _deadline(self, timeout_seconds: float | None) -> float | None:
        return None if timeout_seconds is None else self._clock() + timeout_seconds


def _events(job_id: UUID) -> Request:
    return replace(get(f"/jobs/{job_id}/events"), is_streamed=True, answer_seconds=_SILENCE_SECONDS)


def _seen(event: Event, known: Job) -> Job:
    """Return the job as an event tells it. Raises what the event `error` tells."""
    if event.name == "done":
        return made(Job, object_in(event.data))
    if event.name == "progress":
        told = object_in(event.data)
        names = ("status", "stage", "progress", "attempts")
        return replace(known, **{name: told[name] for name in names if name in told})
    if event.name == "error":
        raise error_of_event(object_in(event.data))
    return known

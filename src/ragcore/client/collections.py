"""Collections: made, looked at, moved to another model, deleted."""

from collections.abc import Sequence

from ragcore.client.bodies import JsonBody
from ragcore.client.caller import Caller, get, given, segment
from ragcore.client.calls import call, stream
from ragcore.client.exchange import Request, Steps, Stream
from ragcore.client.values import CollectionInfo, ReindexState, made
from ragcore.model import DeletionReceipt, Job
from ragcore.ports import SwitchMode


class Collections(Caller):
    """Collections, over HTTP."""

    @stream
    def collections(self) -> Stream[CollectionInfo]:
        """Yield the collections that the key sees, by name."""
        yield from self._pages(
            "/collections",
            "collections",
            lambda told: made(CollectionInfo, told),
            query={},
            limit=None,
            after=None,
        )

    @call
    def collection(self, name: str) -> Steps[CollectionInfo]:
        """Tell what a collection was made with and how much it holds. Raises CollectionNotFound."""
        return made(CollectionInfo, (yield from self._told(get(_path(name)))))

    @call
    def create_collection(
        self,
        name: str,
        *,
        embedding_model: str | None = None,
        language: str | None = None,
        strict: bool | None = None,
    ) -> Steps[CollectionInfo]:
        """Make a collection, or find it as it is wanted.

        Raises Conflict when it is there in another way, CollectionMismatch for a model that the
        service is not configured with.
        """
        wanted = given({"embedding_model": embedding_model, "language": language, "strict": strict})
        request = Request("PUT", _path(name), body=JsonBody(wanted), is_repeatable=True)
        return made(CollectionInfo, (yield from self._told(request)))

    @call
    def delete_collection(self, name: str) -> Steps[DeletionReceipt]:
        """Remove a collection and all in it. Raises CollectionNotFound."""
        return made(DeletionReceipt, (yield from self._told(Request("DELETE", _path(name)))))

    @call
    def reindex(
        self,
        name: str,
        *,
        embedding_model: str | None = None,
        max_tokens: int | None = None,
        questions: Sequence[str] = (),
        switch: SwitchMode = "auto",
    ) -> Steps[Job]:
        """Begin to move a collection to another embedding model or length of chunks; takes `admin`.

        Returns the job to wait for: it answers as before meanwhile. Not sent twice by itself, as
        a second one meets the first. Raises CollectionNotFound, InvalidInput, Conflict when
        nothing is to be changed, ReindexUnderWay, ModelUnavailable.
        """
        wanted = given({"embedding_model": embedding_model, "max_tokens": max_tokens})
        body = JsonBody({**wanted, "questions": list(questions), "switch": switch})
        request = Request("POST", _reindex(name), body=body)
        return made(Job, (yield from self._told(request)))

    @call
    def reindex_state(self, name: str) -> Steps[ReindexState]:
        """Tell what a collection answers from, and what there is beside it: what is being filled,
        and what can be gone back to. Raises CollectionNotFound."""
        return made(ReindexState, (yield from self._told(get(_reindex(name)))))

    @call
    def switch_reindex(self, name: str, *, accept_loss: bool = False) -> Steps[Job]:
        """Have a collection answer from what a reindex has filled; returns the job that does it.

        With `accept_loss` also without documents that could not be taken over. Raises
        CollectionNotFound, GenerationNotFound, ReindexUnderWay.
        """
        body = JsonBody({"accept_loss": accept_loss})
        request = Request("POST", f"{_reindex(name)}/switch", body=body)
        return made(Job, (yield from self._told(request)))

    @call
    def roll_back_reindex(self, name: str, *, accept_loss: bool = False) -> Steps[CollectionInfo]:
        """Have what answered before the last switch answer again; once more undoes that.

        Raises CollectionNotFound, GenerationNotFound, ReindexUnderWay, Busy, and RollbackLoses
        for documents that it lacks, unless that is accepted.
        """
        body = JsonBody({"accept_loss": accept_loss})
        request = Request("POST", f"{_reindex(name)}/rollback", body=body)
        return made(CollectionInfo, (yield from self._told(request)))

    @call
    def discard_reindex(self, name: str) -> Steps[CollectionInfo]:
        """Stop a reindex that runs, or drop what it has filled; what answers stays.

        Raises CollectionNotFound, GenerationNotFound.
        """
        request = Request("DELETE", _reindex(name))
        return made(CollectionInfo, (yield from self._told(request)))


def _path(name: str) -> str:
    return f"/collections/{segment(name)}"


def _reindex(name: str) -> str:
    return f"{_path(name)}/reindex"

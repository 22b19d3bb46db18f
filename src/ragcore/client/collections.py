"""Collections: made, looked at, deleted."""

from ragcore.client.bodies import JsonBody
from ragcore.client.caller import Caller, get, given, segment
from ragcore.client.calls import call, stream
from ragcore.client.exchange import Request, Steps, Stream
from ragcore.client.values import CollectionInfo, made
from ragcore.model import DeletionReceipt


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


def _path(name: str) -> str:
    return f"/collections/{segment(name)}"

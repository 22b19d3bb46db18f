"""Collections: made, looked at, deleted."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from ragcore.errors import CollectionMismatch, CollectionNotFound, Conflict, Unavailable
from ragcore.model import Collection
from ragcore.rag import Rag
from ragcore_api.deps import AdminCaller, IngestCaller, QueryCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.collections import CollectionIn, CollectionOut, CollectionsOut
from ragcore_api.schemas.documents import ReceiptOut
from ragcore_api.schemas.values import CollectionName

router = APIRouter(prefix="/collections", tags=["collections"])

Name = Annotated[CollectionName, Path()]


@router.get(
    "",
    operation_id="list_collections",
    summary="List collections",
    responses=problems(Unavailable),
)
async def list_collections(
    rag: RagDep,
    caller: QueryCaller,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[
        CollectionName | None, Query(description="`next_cursor` of the page before.")
    ] = None,
) -> CollectionsOut:
    """List the collections that the caller sees, by name, with what they hold."""
    seen = [
        CollectionOut.counted(*counted)
        for counted in await rag.collections()
        if caller.principal.sees(counted[0].name) and counted[0].name > (cursor or "")
    ]
    seen.sort(key=lambda collection: collection.name)
    return CollectionsOut(
        collections=seen[:limit],
        next_cursor=seen[limit - 1].name if len(seen) > limit else None,
    )


@router.put(
    "/{name}",
    operation_id="put_collection",
    summary="Make a collection",
    responses=problems(CollectionMismatch, Conflict, Unavailable),
)
async def put_collection(
    name: Name, wanted: CollectionIn, rag: RagDep, caller: IngestCaller
) -> CollectionOut:
    """Make a collection, or find it as it is wanted. Safe to repeat.

    One that is there already in another way is refused, not changed: what its documents were
    made with would no longer be true.
    """
    caller.require_collection(name)
    try:
        found = await rag.runtime.collections.get(name)
    except CollectionNotFound:
        _require_configured(name, wanted.embedding_model, rag.runtime.embedder.spec.model)
        await caller.audit(rag, "collection.create", collection=name)
    else:
        _require_as_wanted(found, wanted)
    made = await rag.create_collection(
        name, language=wanted.language, strict=wanted.strict or False
    )
    _require_as_wanted(made, wanted)  # another caller may have made it meanwhile
    return await counted(rag, name)


def _require_configured(name: str, wanted: str | None, configured: str) -> None:
    if wanted not in (None, configured):
        raise CollectionMismatch(
            f"collection {name!r} can't have the embedding model {wanted!r}: this service is "
            f"configured with {configured!r}; leave embedding_model out, or configure the service "
            "with RAGCORE_EMBEDDING__PROVIDER and RAGCORE_EMBEDDING__MODEL"
        )


def _require_as_wanted(found: Collection, wanted: CollectionIn) -> None:
    if wanted.embedding_model not in (None, found.embedding.model):
        raise CollectionMismatch(
            f"collection {found.name!r} has the embedding model {found.embedding.model!r}, not"
            f" {wanted.embedding_model!r}; move it with `POST /collections/{found.name}/reindex`"
        )
    for what, is_, wished in (
        ("language", found.language, wanted.language),
        ("strict", found.strict, wanted.strict),
    ):
        if wished is not None and wished != is_:
            raise Conflict(
                f"collection {found.name!r} is there with {what} {is_!r}, not {wished!r}; "
                "take it as it is, or delete it first"
            )


@router.get(
    "/{name}",
    operation_id="get_collection",
    summary="Get a collection",
    responses=problems(CollectionNotFound, Unavailable),
)
async def get_collection(name: Name, rag: RagDep, caller: QueryCaller) -> CollectionOut:
    """Tell what a collection was made with and how much it holds."""
    return await counted(rag, caller.require_collection(name))


async def counted(rag: Rag, name: str) -> CollectionOut:
    for counted in await rag.collections():
        if counted[0].name == name:
            return CollectionOut.counted(*counted)
    raise CollectionNotFound(f"there is no collection {name!r}; `PUT /collections/{name}` makes it")


@router.delete(
    "/{name}",
    operation_id="delete_collection",
    summary="Delete a collection",
    responses=problems(CollectionNotFound, Unavailable),
)
async def delete_collection(name: Name, rag: RagDep, caller: AdminCaller) -> ReceiptOut:
    """Remove a collection with all its documents, chunks and stored files. Takes `admin`."""
    caller.require_collection(name)
    await rag.runtime.collections.get(name)
    await caller.audit(rag, "collection.delete", collection=name)
    return ReceiptOut.of(await rag.delete_collection(name))

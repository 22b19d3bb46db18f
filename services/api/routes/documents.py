"""The documents that are there."""

from typing import Annotated

from fastapi import APIRouter, Query

from ragcore.errors import Unavailable
from ragcore_api.deps import RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.documents import DocumentOut, DocumentsOut
from ragcore_api.schemas.values import CollectionName, DocumentId

router = APIRouter(prefix="/documents", tags=["documents"])


@router.get("", responses=problems(Unavailable))
async def documents(
    rag: RagDep,
    collection: Annotated[CollectionName | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        DocumentId | None, Query(description="`next_cursor` of the page before.")
    ] = None,
) -> DocumentsOut:
    """List the documents of a collection in order of their ids."""
    found = await rag.documents(collection=collection, limit=limit + 1, after=cursor)
    page = found[:limit]
    return DocumentsOut(
        documents=[DocumentOut.of(document) for document in page],
        next_cursor=page[-1].document_id if len(found) > limit else None,
    )

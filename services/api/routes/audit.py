"""Who did what."""

from typing import Annotated

from fastapi import APIRouter, Query

from ragcore.errors import Unavailable
from ragcore_api.deps import AdminCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.keys import AuditEntryOut, AuditOut
from ragcore_api.schemas.values import CollectionName

router = APIRouter(prefix="/audit", tags=["access"])


@router.get(
    "",
    operation_id="list_audit",
    summary="List the audit trail",
    responses=problems(Unavailable),
)
async def list_audit(
    caller: AdminCaller,
    rag: RagDep,
    collection: Annotated[CollectionName | None, Query()] = None,
    action: Annotated[
        str | None, Query(max_length=100, examples=["document.delete"], description="Only this.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        int | None, Query(ge=1, lt=2**63, description="`next_cursor` of the page before.")
    ] = None,
) -> AuditOut:
    """Tell who took in and deleted documents and who changed keys and collections.

    The newest comes first. An administrator of some collections sees entries about those alone.
    """
    chosen = caller.collections
    if collection is not None:
        chosen = frozenset({caller.require_collection(collection)})
    found = await rag.runtime.audit.entries(
        collections=chosen, action=action, limit=limit + 1, before=cursor
    )
    page = found[:limit]
    return AuditOut(
        entries=[AuditEntryOut.of(entry) for entry in page],
        next_cursor=page[-1].entry_no if len(found) > limit else None,
    )

"""API keys. They take an administrator of every collection, so that no key makes a stronger one."""

from uuid import UUID

from fastapi import APIRouter, status

from ragcore.errors import KeyNotFound, Unavailable
from ragcore_api.deps import OperatorCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.keys import KeyIn, KeyOut, KeysOut, NewKeyOut

router = APIRouter(prefix="/keys", tags=["access"])


@router.get("", operation_id="list_keys", summary="List keys", responses=problems(Unavailable))
async def list_keys(caller: OperatorCaller, rag: RagDep) -> KeysOut:
    """Return every API key, the newest first, revoked and expired ones included."""
    return KeysOut(keys=[KeyOut.of(key) for key in await rag.runtime.keys.list()])


@router.post(
    "",
    operation_id="create_key",
    summary="Create a key",
    status_code=status.HTTP_201_CREATED,
    responses=problems(Unavailable),
)
async def create_key(key: KeyIn, caller: OperatorCaller, rag: RagDep) -> NewKeyOut:
    """Make an API key. Its secret is in this answer and can't be shown again.

    Sending this again makes another key.
    """
    made = await rag.runtime.keys.create(
        key.name,
        scopes=key.scopes,
        collections=key.collections,
        requests_per_minute=key.requests_per_minute,
        expires_at=key.expires_at,
        actor=caller.principal.name,
        request_id=caller.request_id,
    )
    return NewKeyOut(**KeyOut.of(made.key).model_dump(), secret=made.secret)


@router.delete(
    "/{key_id}",
    operation_id="revoke_key",
    summary="Revoke a key",
    responses=problems(KeyNotFound, Unavailable),
)
async def revoke_key(key_id: UUID, caller: OperatorCaller, rag: RagDep) -> KeyOut:
    """Make an API key worthless, within seconds and for ever. Safe to repeat."""
    revoked = await rag.runtime.keys.revoke(
        key_id, actor=caller.principal.name, request_id=caller.request_id
    )
    return KeyOut.of(revoked)

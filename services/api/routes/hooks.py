"""What other services tell us by themselves. They show a secret of their own, not an API key."""

import hmac
import json
from typing import Any, Final

from fastapi import APIRouter, Request, status

from ragcore.errors import (
    Forbidden,
    InvalidInput,
    SourceUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from ragcore_api.deps import RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.buckets import EventsHeardOut

router = APIRouter(prefix="/hooks", tags=["operation"])

_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "EventName": {"type": "string"},
        "Records": {"type": "array", "items": {"type": "object"}},
    },
    "example": {
        "EventName": "s3:ObjectCreated:Put",
        "Records": [{"s3": {"bucket": {"name": "reports"}, "object": {"key": "2024%2Fa.pdf"}}}],
    },
}


@router.post(
    "/minio",
    operation_id="hear_minio",
    summary="Hear what happened in a bucket",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(
        InvalidInput, Unauthenticated, Forbidden, SourceUnavailable, StoreUnavailable
    ),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": _EVENT}}}
    },
)
async def hear_minio(request: Request, rag: RagDep) -> EventsHeardOut:
    """Take a bucket notification of MinIO: created, overwritten or removed.

    Each object that it names is looked at in its bucket, so it may come twice, late or in any
    order. Answered when the jobs are durable. `Authorization` holds MinIO's `auth_token`, which
    must be `RAGCORE_BUCKETS__HOOK_SECRET`.
    """
    secret = rag.runtime.settings.buckets.hook_secret
    if secret is None:
        raise Forbidden(
            "no secret is configured for this hook, so it is closed: set "
            "RAGCORE_BUCKETS__HOOK_SECRET and give it to MinIO as auth_token"
        )
    shown = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not hmac.compare_digest(shown.encode(), secret.get_secret_value().encode()):
        raise Unauthenticated("this is not the secret of the hook")
    message = _json(await request.body())
    return EventsHeardOut(objects=await rag.runtime.hear_events(message))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from error

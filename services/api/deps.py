"""What routes are given."""

from typing import Annotated

from fastapi import Depends, Request

from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.rag import Rag


def _rag(request: Request) -> Rag:
    rag: Rag = request.state.rag
    return rag


def _doorbell(request: Request) -> RedisDoorbell:
    doorbell: RedisDoorbell = request.state.doorbell
    return doorbell


RagDep = Annotated[Rag, Depends(_rag)]
DoorbellDep = Annotated[RedisDoorbell, Depends(_doorbell)]

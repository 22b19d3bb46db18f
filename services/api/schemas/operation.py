"""Whether and how the service runs."""

from typing import Literal

from pydantic import Field

from ragcore_api.schemas.values import Out


class LiveOut(Out):
    status: Literal["ok"] = "ok"


class ReadyOut(Out):
    """`ok` when documents can be taken and questions answered; each dependency by name."""

    status: Literal["ok", "unavailable"]
    dependencies: dict[str, str] = Field(
        description="`ok`, or what is wrong. Without the queue jobs only start later."
    )


class VersionOut(Out):
    version: str
    embedding_model: str

"""Whether and how the service runs."""

from typing import Literal

from pydantic import Field

from ragcore_api.schemas.values import Out, examples


class LiveOut(Out):
    model_config = examples({"status": "ok"})

    status: Literal["ok"] = "ok"


class ReadyOut(Out):
    """Each dependency by name, and what follows."""

    model_config = examples(
        {
            "status": "ok",
            "dependencies": {
                "database": "ok",
                "queue": "ok",
                "blob_store": "ok",
                "embedding_model": "ok",
                "disk": "ok",
            },
        }
    )

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="`degraded`: questions are answered, documents may wait or be refused; "
        "`unavailable`: no question is answered."
    )
    dependencies: dict[str, str] = Field(
        description="`ok`, `timeout`, or the code of what is wrong: `database`, `queue` (without "
        "it jobs only start later), `blob_store`, `embedding_model`, `disk` and, when one is "
        "configured, `language_model` (without it answers quote the passages), where "
        "`model_missing: …` names a model that Ollama lacks and the command that pulls it."
    )


class ServiceVersionOut(Out):
    model_config = examples(
        {"version": "0.1.0", "embedding_model": "bundled:multilingual-e5-small"}
    )

    version: str
    embedding_model: str

"""A typed client of the HTTP API, with and without an event loop.

    from ragcore.client import Client

    with Client("https://rag.example.org", api_key="rk_…") as rag:
        job = rag.wait(rag.ingest("report.pdf"))
        print(rag.ask("What grew?").text)

`AsyncClient` has the same methods as coroutines, and those that yield as asynchronous iterators.
What goes wrong is raised as the errors of `ragcore.errors`, with the id of the request that the
service's log knows.
"""

from ragcore.client.drivers import AsyncClient, Client
from ragcore.client.questions import AnswerEvent
from ragcore.client.retrying import Retries
from ragcore.client.values import (
    AnswerCitations,
    CollectionInfo,
    Converted,
    ConvertedChunk,
    DocumentChunk,
    DocumentDetail,
    GenerationInfo,
    NewKey,
    ObjectResult,
    Readiness,
    ReindexState,
    ServiceVersion,
)

__all__ = [
    "AnswerCitations",
    "AnswerEvent",
    "AsyncClient",
    "Client",
    "CollectionInfo",
    "Converted",
    "ConvertedChunk",
    "DocumentChunk",
    "DocumentDetail",
    "GenerationInfo",
    "NewKey",
    "ObjectResult",
    "Readiness",
    "ReindexState",
    "Retries",
    "ServiceVersion",
]

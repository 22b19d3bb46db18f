"""What a user would write instead of ragcore: a plain FastAPI app over a stock LlamaIndex store.

    python benchmarks/http_peers.py supabase|pgvector DATABASE_URL COLLECTION PORT VECTORS.npz

`supabase` is the stock SupabaseVectorStore over the collection's own table with its HNSW index,
`pgvector` the stock PGVectorStore in hybrid mode over a copy. Questions are embedded beforehand.
Started by http_search.py.
"""

import sys
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from pydantic import BaseModel

from hybrid_100k import peer_store

TOP_K = 10


class Question(BaseModel):
    question: str
    top_k: int = TOP_K
    mode: str = "vector"
    collection: str = "default"


class Found(BaseModel):
    id: str
    text: str
    score: float
    metadata: dict[str, Any]


def main() -> None:
    kind, url, collection, port, vectors = sys.argv[1:]
    with np.load(vectors, allow_pickle=False) as stored:
        known = dict(zip(stored["questions"].tolist(), stored["vectors"].tolist(), strict=True))
    app = FastAPI()
    if kind == "supabase":
        _serve_supabase(app, url, collection, known)
    else:
        _serve_pgvector(app, url, known)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


def _serve_supabase(app: FastAPI, url: str, collection: str, known: dict[str, list[float]]) -> None:
    from llama_index.vector_stores.supabase import SupabaseVectorStore

    store = SupabaseVectorStore(
        postgres_connection_string=url.replace("postgresql://", "postgresql+psycopg2://"),
        collection_name=collection,
        dimension=len(next(iter(known.values()))),
    )

    @app.post("/search")
    def search(question: Question) -> list[Found]:  # sync: the store has no asynchronous query
        query = VectorStoreQuery(
            query_embedding=known[question.question], similarity_top_k=question.top_k
        )
        return _found(store.query(query))


def _serve_pgvector(app: FastAPI, url: str, known: dict[str, list[float]]) -> None:
    store = peer_store(url)

    @app.post("/search")
    async def search(question: Question) -> list[Found]:
        query = VectorStoreQuery(
            query_embedding=known[question.question],
            query_str=question.question,
            similarity_top_k=question.top_k,
            sparse_top_k=question.top_k,
            mode=VectorStoreQueryMode.HYBRID,
        )
        return _found(await store.aquery(query))


def _found(result: Any) -> list[Found]:
    return [
        Found(
            id=node.node_id,
            text=node.get_content(),
            score=float(score or 0.0),
            metadata={k: v for k, v in node.metadata.items() if not k.startswith("_")},
        )
        for node, score in zip(result.nodes, result.similarities, strict=False)
    ]


if __name__ == "__main__":
    main()

"""The stock Supabase vector store over one of our collections."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ragcore.errors import MissingExtra

if TYPE_CHECKING:
    from llama_index.vector_stores.supabase import SupabaseVectorStore


def supabase_vector_store(
    database_url: str, collection: str, dimension: int
) -> "SupabaseVectorStore":
    """Return LlamaIndex's own `SupabaseVectorStore`, opened on the table of a collection.

    It reads the nodes that ragcore reads. What it cannot do (more than ten rows in a delete,
    scores that grow with likeness, other filters than equality, keyword search) `RagVectorStore`
    can. Connects at once, with a pool of its own and psycopg2; raises MissingExtra without it.
    """
    try:
        from llama_index.vector_stores.supabase import SupabaseVectorStore
    except ImportError as error:
        raise MissingExtra(
            "SupabaseVectorStore is not installed: pip install 'ragcore[supabase]'"
        ) from error
    return SupabaseVectorStore(
        postgres_connection_string=sqlalchemy_url(database_url),
        collection_name=collection,
        dimension=dimension,
    )


def sqlalchemy_url(database_url: str) -> str:
    """Name psycopg2 in a URL: vecs works with no other driver, and SQLAlchemy may choose one."""
    scheme, *rest = urlsplit(database_url)
    if scheme not in ("postgresql", "postgres"):
        return database_url
    return urlunsplit(("postgresql+psycopg2", *rest))

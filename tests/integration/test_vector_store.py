"""RagVectorStore over a real PostgreSQL: every operation, every mode, every filter."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.migrate import migrate
from ragcore.adapters.postgres.nodes import PostgresNodes
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.errors import (
    CollectionMismatch,
    CollectionNotFound,
    InvalidFilter,
    InvalidInput,
)
from ragcore.llamaindex.vector_store import RagVectorStore
from ragcore.model import EmbeddingSpec

DIMENSION = 8
SPEC = EmbeddingSpec("test:random", DIMENSION, 512)


def direction(seed: int) -> list[float]:
    """Return the same unit vector for the same seed, another for any other."""
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return [float(x) for x in vector / np.linalg.norm(vector)]


def node(
    id_: str,
    text: str = "text",
    *,
    of: str | None = None,
    seed: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> TextNode:
    made = TextNode(
        id_=id_,
        text=text,
        metadata=metadata or {},
        embedding=direction(len(id_) if seed is None else seed),
    )
    if of is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=of)
    return made


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def store(pool: Pool, database_url: str) -> AsyncIterator[RagVectorStore]:
    """A vector store over an empty collection, its async calls on the bridge's loop."""
    await PostgresCollections(pool).open("notes", embedding=SPEC, chunker="test")
    store = RagVectorStore.from_url(database_url, collection="notes")
    yield store
    await store.aclose()


async def ids_of(store: RagVectorStore, **wanted: Any) -> set[str]:
    return {found.node_id for found in await store.aget_nodes(**wanted)}


async def asked(store: RagVectorStore, **options: Any) -> list[tuple[str, float]]:
    result = await store.aquery(VectorStoreQuery(**{"similarity_top_k": 10, **options}))
    assert result.ids is not None
    assert result.similarities is not None
    assert result.nodes is not None
    assert [found.node_id for found in result.nodes] == result.ids
    return list(zip(result.ids, result.similarities, strict=True))


def only(*filters: MetadataFilter | MetadataFilters, condition: str = "and") -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=FilterCondition(condition))


# --- adding and reading --------------------------------------------------------------------


async def test_a_node_comes_back_as_it_was_added(store: RagVectorStore) -> None:
    added = node("a", "Паром отходит в девять.", of="guide", metadata={"year": 2024, "tags": ["x"]})
    added.excluded_llm_metadata_keys = ["year"]
    assert await store.async_add([added]) == ["a"]
    (found,) = await store.aget_nodes(["a"])
    assert found.model_dump(exclude={"embedding"}) == added.model_dump(exclude={"embedding"})


async def test_adding_a_node_again_replaces_it(store: RagVectorStore) -> None:
    await store.async_add([node("a", "old words", seed=1), node("b", "other")])
    await store.async_add([node("a", "new phrase", seed=2)])
    assert {found.get_content() for found in await store.aget_nodes()} == {"new phrase", "other"}
    text_search = VectorStoreQueryMode.TEXT_SEARCH
    assert await asked(store, query_str="old words", mode=text_search) == []
    assert [id_ for id_, _ in await asked(store, query_str="phrase", mode=text_search)] == ["a"]
    ((id_, score),) = await asked(store, query_embedding=direction(2), node_ids=["a"])
    assert (id_, round(score, 5)) == ("a", 1.0)


async def test_the_last_of_two_nodes_with_one_id_is_kept(store: RagVectorStore) -> None:
    await store.async_add([node("a", "first"), node("a", "second")])
    assert [found.get_content() for found in await store.aget_nodes()] == ["second"]


async def test_writers_of_the_same_node_leave_one(store: RagVectorStore) -> None:
    await asyncio.gather(*(store.async_add([node("a", f"text {n}", seed=n)]) for n in range(8)))
    assert len(await store.aget_nodes()) == 1


async def test_nodes_come_in_the_order_of_the_ids_asked_for(store: RagVectorStore) -> None:
    await store.async_add([node("a"), node("b"), node("c")])
    found = await store.aget_nodes(["c", "missing", "a"])
    assert [one.node_id for one in found] == ["c", "a"]


async def test_vectors_of_another_dimension_are_refused(store: RagVectorStore) -> None:
    with pytest.raises(CollectionMismatch, match="'notes'"):
        await store.async_add([TextNode(id_="a", text="x", embedding=[1.0, 2.0])])
    assert await store.aget_nodes() == []


async def test_a_vector_that_is_no_number_is_refused(store: RagVectorStore) -> None:
    with pytest.raises(InvalidInput, match="no usable vector"):
        await store.async_add([TextNode(id_="a", text="x", embedding=[float("nan")] * DIMENSION)])


async def test_a_collection_that_is_not_there_is_named(database_url: str) -> None:
    store = RagVectorStore.from_url(database_url, collection="absent")
    with pytest.raises(CollectionNotFound, match="'absent'"):
        await store.aget_nodes()
    await store.aclose()


async def test_the_first_add_makes_the_collection_when_the_model_is_known(
    database_url: str,
) -> None:
    store = RagVectorStore.from_url(database_url, collection="fresh", embedding=SPEC)
    await store.async_add([node("a")])
    assert await ids_of(store) == {"a"}
    await store.aclose()


# --- deleting ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10, 11, 1000])
async def test_all_nodes_of_a_document_are_deleted(store: RagVectorStore, size: int) -> None:
    await store.async_add([node(f"gone-{n}", of="gone", seed=n) for n in range(size)])
    await store.async_add([node("kept", of="kept"), node("orphan")])
    await store.adelete("gone")
    assert await ids_of(store) == {"kept", "orphan"}
    await store.adelete("gone")
    assert await ids_of(store) == {"kept", "orphan"}


async def test_words_of_deleted_nodes_are_gone_with_them(store: RagVectorStore) -> None:
    await store.async_add([node("a", "lighthouse", of="d"), node("b", "lighthouse", of="e")])
    await store.adelete("d")
    found = await asked(store, query_str="lighthouse", mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert [id_ for id_, _ in found] == ["b"]


async def test_nodes_are_deleted_by_id_by_filter_and_by_both(store: RagVectorStore) -> None:
    await store.async_add([node(id_, metadata={"year": len(id_)}) for id_ in ("a", "bb", "cc")])
    await store.adelete_nodes(["a", "bb"], only(MetadataFilter(key="year", value=2)))
    assert await ids_of(store) == {"a", "cc"}
    await store.adelete_nodes(filters=only(MetadataFilter(key="year", value=2)))
    assert await ids_of(store) == {"a"}
    await store.adelete_nodes(["a"])
    assert await ids_of(store) == set()


async def test_deleting_nodes_without_saying_which_deletes_none(store: RagVectorStore) -> None:
    await store.async_add([node("a")])
    await store.adelete_nodes()
    await store.adelete_nodes(filters=MetadataFilters(filters=[]))
    await store.adelete_nodes([])
    assert await ids_of(store) == {"a"}


async def test_clearing_leaves_an_empty_collection(store: RagVectorStore) -> None:
    await store.async_add([node(str(n), seed=n) for n in range(20)])
    await store.aclear()
    assert await ids_of(store) == set()
    await store.async_add([node("a")])
    assert await ids_of(store) == {"a"}


# --- sync and async ------------------------------------------------------------------------


def exercise(store: RagVectorStore) -> None:
    """Call every sync method."""
    store.add([node("a", "ferry", of="d", seed=1), node("b", "train", of="e", seed=2)])
    assert [found.node_id for found in store.get_nodes(["b"])] == ["b"]
    assert store.query(VectorStoreQuery(query_embedding=direction(1))).ids == ["a"]
    mmr = VectorStoreQueryMode.MMR
    query = VectorStoreQuery(query_embedding=direction(2), similarity_top_k=2, mode=mmr)
    assert store.query(query).ids == ["b", "a"]
    hybrid = VectorStoreQueryMode.HYBRID
    query = VectorStoreQuery(query_embedding=direction(1), query_str="ferries", mode=hybrid)
    assert store.query(query).ids == ["a"]
    store.delete("d")
    store.delete_nodes(["b"])
    assert store.get_nodes() == []
    store.add([node("c")])
    store.clear()
    assert store.get_nodes() == []


async def test_sync_methods_work_inside_a_running_loop(store: RagVectorStore) -> None:
    exercise(store)


async def test_sync_methods_work_in_a_thread(store: RagVectorStore) -> None:
    await asyncio.to_thread(exercise, store)


def test_sync_methods_work_without_a_loop(database_url: str) -> None:
    store = RagVectorStore.from_url(database_url, collection="notes", embedding=SPEC)
    exercise(store)
    store.close()


async def test_every_operation_works_on_every_server(any_postgres: str) -> None:
    """Also with the extension in a schema that is in nobody's search path, as on Supabase."""
    with psycopg.connect(any_postgres, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION vector SCHEMA extensions")
    await migrate(any_postgres)
    store = RagVectorStore.from_url(any_postgres, collection="notes", embedding=SPEC)
    exercise(store)
    await store.aclose()


async def test_async_methods_use_the_pool_of_their_own_loop(pool: Pool, database_url: str) -> None:
    from ragcore.llamaindex.bridge import Bridged

    await PostgresCollections(pool).open("notes", embedding=SPEC, chunker="test")

    def open_() -> Any:
        raise AssertionError("the bridge is not needed here")

    home = PostgresNodes(pool, "notes")
    store = RagVectorStore(Bridged.opened_by(open_, home=home), collection="notes")
    await store.async_add([node("a")])
    assert await ids_of(store) == {"a"}


def test_a_store_tells_its_collection_and_no_secret(database_url: str) -> None:
    store = RagVectorStore.from_url(database_url, collection="notes")
    told = store.to_dict()
    assert told == {
        "stores_text": True,
        "is_embedding_query": True,
        "flat_metadata": False,
        "collection": "notes",
        "class_name": "RagVectorStore",
    }


# --- querying ------------------------------------------------------------------------------

FERRY = [
    node("nine", "The ferry leaves at nine.", of="times", seed=1, metadata={"page": 1}),
    node("dogs", "Dogs travel free on the ferry.", of="fares", seed=2, metadata={"page": 2}),
    node("snow", "In snow no ship leaves the harbour.", of="times", seed=3, metadata={"page": 3}),
]


async def test_default_mode_scores_by_cosine(store: RagVectorStore) -> None:
    await store.async_add(FERRY)
    found = await asked(store, query_embedding=direction(2))
    cosines = {one.node_id: float(np.dot(direction(2), one.embedding or [])) for one in FERRY}
    assert [id_ for id_, _ in found] == sorted(cosines, key=lambda id_: -cosines[id_])
    assert dict(found) == pytest.approx(cosines, abs=1e-5)


async def test_the_opposite_vector_scores_lowest(store: RagVectorStore) -> None:
    opposite = node("opposite", seed=2)
    opposite.embedding = [-x for x in direction(2)]
    await store.async_add([*FERRY, opposite])
    found = await asked(store, query_embedding=direction(2))
    assert found[0] == ("dogs", pytest.approx(1.0, abs=1e-5))
    assert found[-1] == ("opposite", pytest.approx(-1.0, abs=1e-5))


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE])
async def test_text_search_finds_the_words_alone(
    store: RagVectorStore, mode: VectorStoreQueryMode
) -> None:
    await store.async_add(FERRY)
    found = await asked(store, query_str="Does a dog travel on ferries?", mode=mode)
    assert [id_ for id_, _ in found] == ["dogs", "nine"]
    assert found[0][1] > found[1][1] > 0


async def test_text_search_reads_russian_word_forms(store: RagVectorStore) -> None:
    await store.async_add(
        [node("a", "Собаки путешествуют на пароме бесплатно, а ёжики за полцены."), *FERRY]
    )
    mode = VectorStoreQueryMode.TEXT_SEARCH
    for question in ("бесплатная собака", "ежик"):
        found = await asked(store, query_str=question, mode=mode)
        assert [id_ for id_, _ in found] == ["a"], question


async def test_alpha_weighs_the_legs_of_hybrid_mode(store: RagVectorStore) -> None:
    await store.async_add(FERRY)
    hybrid = {"query_str": "dogs", "query_embedding": direction(3)}
    mode = VectorStoreQueryMode.HYBRID
    by_words = await asked(store, **hybrid, mode=mode, alpha=0.0)
    by_vector = await asked(store, **hybrid, mode=mode, alpha=1.0)
    assert by_words[0][0] == "dogs"
    plain = await asked(store, query_embedding=direction(3))
    assert [id_ for id_, _ in by_vector] == [id_ for id_, _ in plain]
    for alpha in (0.0, 0.3, None, 1.0):
        scores = [score for _, score in await asked(store, **hybrid, mode=mode, alpha=alpha)]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


async def test_a_blind_keyword_leg_leaves_hybrid_to_the_vectors(store: RagVectorStore) -> None:
    await store.async_add(FERRY)
    question = {"query_str": "совсем о другом", "query_embedding": direction(3)}
    found = await asked(store, **question, mode=VectorStoreQueryMode.HYBRID)
    plain = await asked(store, query_embedding=direction(3))
    assert [id_ for id_, _ in found] == [id_ for id_, _ in plain]


async def test_hybrid_top_k_limits_what_comes_back(store: RagVectorStore) -> None:
    await store.async_add(FERRY)
    mode = VectorStoreQueryMode.HYBRID
    found = await asked(
        store, query_str="ferry", query_embedding=direction(1), mode=mode, hybrid_top_k=1
    )
    assert [id_ for id_, _ in found] == ["nine"]


async def test_mmr_prefers_what_differs_from_what_is_chosen(store: RagVectorStore) -> None:
    twin = node("twin", "The ferry leaves at nine!", seed=1)
    await store.async_add([*FERRY, twin])
    nearest = await asked(store, query_embedding=direction(1), similarity_top_k=2)
    assert {id_ for id_, _ in nearest} == {"nine", "twin"}
    diverse = await asked(
        store,
        query_embedding=direction(1),
        similarity_top_k=2,
        mode=VectorStoreQueryMode.MMR,
        mmr_threshold=0.3,
    )
    assert diverse[0][0] in ("nine", "twin")
    assert diverse[1][0] in ("dogs", "snow")
    greedy = await asked(
        store,
        query_embedding=direction(1),
        similarity_top_k=2,
        mode=VectorStoreQueryMode.MMR,
        mmr_threshold=1.0,
    )
    assert {id_ for id_, _ in greedy} == {"nine", "twin"}


async def test_an_unknown_mode_and_a_missing_question_are_refused(store: RagVectorStore) -> None:
    with pytest.raises(InvalidInput, match="'svm' is not supported"):
        await asked(store, query_embedding=direction(1), mode=VectorStoreQueryMode.SVM)
    with pytest.raises(InvalidInput, match="query_str"):
        await asked(store, mode=VectorStoreQueryMode.TEXT_SEARCH)
    with pytest.raises(InvalidInput, match="query_embedding"):
        await asked(store)


QUESTIONS: list[dict[str, Any]] = [
    {"query_embedding": direction(1)},
    {"query_str": "ferry leaves ship", "mode": VectorStoreQueryMode.TEXT_SEARCH},
    {
        "query_str": "ferry leaves ship",
        "query_embedding": direction(1),
        "mode": VectorStoreQueryMode.HYBRID,
    },
    {"query_embedding": direction(1), "mode": VectorStoreQueryMode.MMR},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=["default", "text", "hybrid", "mmr"])
async def test_each_mode_honours_node_and_document_ids_and_filters(
    store: RagVectorStore, question: dict[str, Any]
) -> None:
    await store.async_add(FERRY)

    async def ids(**restriction: Any) -> set[str]:
        return {id_ for id_, _ in await asked(store, **question, **restriction)}

    assert await ids() == {"nine", "dogs", "snow"}
    assert await ids(node_ids=["dogs", "snow", "absent"]) == {"dogs", "snow"}
    assert await ids(node_ids=["absent"]) == set()
    assert await ids(doc_ids=["times"]) == {"nine", "snow"}
    assert await ids(doc_ids=["absent"]) == set()
    assert await ids(doc_ids=[], node_ids=[]) == {"nine", "dogs", "snow"}
    assert await ids(doc_ids=["times"], node_ids=["dogs", "snow"]) == {"snow"}
    late = only(MetadataFilter(key="page", value=2, operator=FilterOperator.GTE))
    assert await ids(filters=late) == {"dogs", "snow"}
    assert await ids(filters=late, doc_ids=["times"]) == {"snow"}
    assert await ids(filters=late, node_ids=["nine", "dogs"]) == {"dogs"}


@pytest.mark.parametrize("question", QUESTIONS, ids=["default", "text", "hybrid", "mmr"])
async def test_a_narrow_filter_never_returns_too_little(
    store: RagVectorStore, question: dict[str, Any]
) -> None:
    await store.async_add(
        [
            node(f"n{n}", "ferry leaves ship", seed=1000 + n, metadata={"rare": n % 100 == 0})
            for n in range(1000)
        ]
    )
    rare = only(MetadataFilter(key="rare", value="yes", operator=FilterOperator.NE))
    assert len(await asked(store, **question, filters=rare)) == 10
    by_ids = [f"n{n}" for n in range(0, 1000, 100)]
    assert {id_ for id_, _ in await asked(store, **question, node_ids=by_ids)} == set(by_ids)


# --- filters -------------------------------------------------------------------------------

DESCRIBED: list[dict[str, Any]] = [
    {"year": 2022, "kind": "report", "tags": ["sea", "ferry"], "note": "Ferry Timetable"},
    {"year": 2023, "kind": "report", "tags": ["ferry"], "note": "ferry fares"},
    {"year": 2024, "kind": "letter", "tags": [], "note": ""},
    {"year": 2024.5, "kind": "letter", "tags": ["snow"]},
    {"kind": "memo", "year": None},
    {},
]

OPERATORS: list[tuple[str, Any]] = [
    ("==", 2023), ("==", "report"), ("!=", 2023), ("!=", "report"), (">", 2023), (">=", 2023),
    ("<", 2024), ("<=", 2024), ("in", [2022, 2024]), ("in", ["report", "memo"]),
    ("nin", [2022, 2024]), ("nin", ["report"]), ("any", ["sea", "snow"]), ("all", ["sea", "ferry"]),
    ("contains", "ferry"), ("text_match", "Ferry"), ("text_match_insensitive", "FERRY"),
    ("is_empty", None),
]  # fmt: skip


def fits(operator: str, value: Any, found: Any) -> bool:
    """Say what LlamaIndex means by an operator; values of unlike types never match (D14)."""
    if operator in ("!=", "nin"):
        return not fits({"!=": "==", "nin": "in"}[operator], value, found)
    if operator == "is_empty":
        return found in (None, "", [])
    if operator == "in":
        return any(fits("==", one, found) for one in value)
    if operator in ("any", "all"):
        return isinstance(found, list) and (any if operator == "any" else all)(
            one in found for one in value
        )
    if operator == "contains":
        return isinstance(found, list) and value in found
    if isinstance(value, str) != isinstance(found, str) or found is None:
        return False
    if isinstance(found, list):
        return False
    part = MetadataFilter(key="k", value=value, operator=FilterOperator(operator))
    return build_metadata_filter_fn(lambda _: {"k": found}, only(part))("")


@pytest.fixture
async def described(store: RagVectorStore) -> RagVectorStore:
    await store.async_add(
        [node(str(n), seed=n, metadata=metadata) for n, metadata in enumerate(DESCRIBED)]
    )
    return store


@pytest.mark.parametrize("key", ["year", "kind", "tags", "note"])
async def test_every_operator_means_what_llamaindex_means(
    described: RagVectorStore, key: str
) -> None:
    for operator, value in OPERATORS:
        part = MetadataFilter(key=key, value=value, operator=FilterOperator(operator))
        expected = {
            str(n)
            for n, metadata in enumerate(DESCRIBED)
            if fits(operator, value, metadata.get(key))
        }
        assert await ids_of(described, filters=only(part)) == expected, part
        found = await asked(described, query_embedding=direction(1), filters=only(part))
        assert {id_ for id_, _ in found} == expected, part


Case = tuple[MetadataFilters, set[str]]
year_2024 = MetadataFilter(key="year", value=2024)
report = MetadataFilter(key="kind", value="report")
late = MetadataFilter(key="year", value=2023, operator=FilterOperator.GTE)
CASES: Sequence[Case] = [
    (only(late, report), {"1"}),
    (only(year_2024, report, condition="or"), {"0", "1", "2"}),
    (only(year_2024, report, condition="not"), {"3", "4", "5"}),
    (only(only(year_2024, report, condition="or"), late), {"1", "2"}),
    (only(only(only(report, condition="not"), late), condition="not"), {"0", "1", "4", "5"}),
]


async def test_conditions_nest(described: RagVectorStore) -> None:
    for filters, expected in CASES:
        assert await ids_of(described, filters=filters) == expected, filters


async def test_a_filter_that_compares_with_a_list_by_order_is_refused(
    described: RagVectorStore,
) -> None:
    part = MetadataFilter(key="year", value=[1], operator=FilterOperator.GT)
    with pytest.raises(InvalidFilter):
        await described.aget_nodes(filters=only(part))

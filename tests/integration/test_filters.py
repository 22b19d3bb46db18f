"""Filters as SQL mean what `steps/filtering.py` defines, for any filter and any document."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres.filters import document_condition, own_condition
from ragcore.model import AllOf, AnyOf, Condition, Document, Filter, Not
from ragcore.steps.filtering import RESERVED, fields_of, matches

EVERY_EXAMPLE = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = st.sampled_from(["a", "b", "title", "language", "document_id", 'it\'s "odd" %s {x}'])
TEXTS = st.sampled_from(["", "x", "xy", "XY", "Я", "я", "1", "true", "null", "ё", "%", "\\", "'"])
NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, 0.1, 1e300, 10**30, 1e23, 10**23, 2**53 + 1, float(2**53), -0.0]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
STORED = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(TEXTS, SCALARS, max_size=2)
)
FIELDS = st.dictionaries(NAMES, STORED, max_size=4)
MOMENTS = st.sampled_from(
    ["2026-01-31", "2026-01-31T12:00:00", "2026-01-31T15:00:00+03:00", "2026-02-01T00:00:00Z"]
)
CREATED = st.sampled_from(
    [
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        datetime(2026, 1, 31, 15, tzinfo=timezone(timedelta(hours=3))),
        datetime(2026, 2, 1, tzinfo=UTC),
    ]
)
DOCUMENTS = st.builds(
    Document,
    collection=st.just("c"),
    document_id=TEXTS.filter(bool),
    title=st.none() | TEXTS,
    language=st.none() | TEXTS,
    mime_type=st.none() | TEXTS,
    metadata=FIELDS,
    extracted=FIELDS,
    created_at=CREATED,
)


def conditions(names: st.SearchStrategy[str]) -> st.SearchStrategy[Condition]:
    lists = st.lists(SCALARS, max_size=3).map(tuple)
    long_lists = lists.map(lambda values: values * 20)
    return st.one_of(
        st.builds(Condition, names, st.sampled_from(["eq", "ne", "contains"]), SCALARS),
        st.builds(Condition, names, st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS | TEXTS),
        st.builds(Condition, names, st.sampled_from(["in", "nin"]), lists | long_lists),
        st.builds(Condition, names, st.sampled_from(["any", "all"]), lists),
        st.builds(Condition, names, st.just("exists"), st.booleans()),
        st.builds(
            Condition, names, st.sampled_from(["text_match", "text_match_insensitive"]), TEXTS
        ),
        st.builds(Condition, names, st.just("is_empty")),
    )


TIMED = st.builds(
    Condition,
    st.just("created_at"),
    st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
    MOMENTS,
) | st.builds(Condition, st.just("created_at"), st.just("in"), st.lists(MOMENTS).map(tuple))


def nested(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return st.recursive(
        parts,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
        ),
        max_leaves=5,
    )


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@EVERY_EXAMPLE
@given(filter_=nested(conditions(NAMES) | TIMED), document=DOCUMENTS)
def test_documents_are_filtered_as_defined(
    connection: psycopg.Connection[Any], filter_: Filter, document: Document
) -> None:
    condition, values = document_condition(filter_)
    row = {f"row_{name}": getattr(document, name) for name in RESERVED}
    described = {"row_m": Jsonb(document.metadata), "row_x": Jsonb(document.extracted)}
    found = connection.execute(
        "SELECT count(*) FROM (SELECT %(row_document_id)s::text AS document_id,"
        " %(row_title)s::text AS title, %(row_language)s::text AS language,"
        " %(row_mime_type)s::text AS mime_type, %(row_created_at)s::timestamptz AS created_at,"
        " %(row_m)s::jsonb AS metadata, %(row_x)s::jsonb AS extracted) d"
        f" WHERE {condition}".encode(),
        {**values, **row, **described},
    ).fetchone()
    assert found == (int(matches(filter_, fields_of(document))),)


@EVERY_EXAMPLE
@given(
    filter_=nested(conditions(NAMES)),
    metadata=FIELDS,
    document_id=st.none() | TEXTS,
    language=st.none() | TEXTS,
)
def test_rows_with_metadata_of_their_own_are_filtered_as_defined(
    connection: psycopg.Connection[Any],
    filter_: Filter,
    metadata: dict[str, Any],
    document_id: str | None,
    language: str | None,
) -> None:
    condition, values = own_condition(filter_)
    found = connection.execute(
        "SELECT count(*) FROM (SELECT %(row_m)s::jsonb AS metadata,"
        " %(row_d)s::text AS document_id, %(row_l)s::text AS language) t"
        f" WHERE {condition}".encode(),
        {**values, "row_m": Jsonb(metadata), "row_d": document_id, "row_l": language},
    ).fetchone()
    columns = {"document_id": document_id, "language": language}
    fields = metadata | {name: value for name, value in columns.items() if value is not None}
    assert found == (int(matches(filter_, fields)),)

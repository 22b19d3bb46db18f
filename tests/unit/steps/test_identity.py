import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.errors import InvalidInput
from ragcore.steps.identity import (
    checked_collection,
    checked_document_id,
    checked_metadata,
    clean_title,
    id_from_uri,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(alphabet='aбв \n"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=10,
)


@given(st.text(min_size=1))
def test_every_uri_gives_an_id_that_is_one_path_segment(uri: str) -> None:
    try:
        uri.encode()
    except UnicodeEncodeError:
        return  # no URI holds half a character
    try:
        derived = id_from_uri(uri)
    except ValueError:
        return  # not a URI at all, `http://[`
    assert checked_document_id(derived) == derived
    assert id_from_uri(uri) == derived


def test_an_id_can_be_read_and_tells_apart_what_has_the_same_name() -> None:
    one, other = id_from_uri("file:///a/report.pdf"), id_from_uri("file:///b/report.pdf")
    assert one.startswith("report.pdf~")
    assert one != other
    assert id_from_uri("file:///итоги%20года.pdf").startswith("itogi-goda.pdf~")
    assert re.fullmatch(r"[0-9a-f]{16}", id_from_uri("file:///%20"))


@pytest.mark.parametrize("name", ["", "Default", "a b", "x" * 49, "a/b", "naïve", "a\n"])
def test_collections_have_plain_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        checked_collection(name)


@given(st.dictionaries(st.text("abc"), JSON, max_size=4))
def test_metadata_is_kept_as_it_is(metadata: dict[str, object]) -> None:
    assert checked_metadata(metadata) == json.loads(json.dumps(metadata))


def test_text_that_only_looks_like_a_nul_is_kept() -> None:
    assert checked_metadata({"a": "\\u0000"}) == {"a": "\\u0000"}


def test_deep_metadata_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"a": deep}
    with pytest.raises(InvalidInput, match="16 levels"):
        checked_metadata(deep)


def test_titles_become_one_line() -> None:
    assert clean_title(" A\n\ttitle\0 \u202e") == "A title"
    assert clean_title("\n") is None

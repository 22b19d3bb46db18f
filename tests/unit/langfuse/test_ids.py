from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.langfuse.ids import SealedIds
from ragcore.errors import TraceNotFound

IDS = SealedIds("sk-lf-one")


def made() -> str:
    return f"{IDS.generate_trace_id():032x}"


def test_an_id_tells_when_it_was_made_to_every_process_with_the_same_key() -> None:
    made_at = SealedIds("sk-lf-one").made_at(made())
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=5)


def test_ids_of_another_project_are_unknown() -> None:
    with pytest.raises(TraceNotFound):
        SealedIds("sk-lf-other").made_at(made())


@given(st.integers(0, 31), st.sampled_from("0123456789abcdef"))
def test_an_id_of_which_a_single_digit_is_changed_is_unknown(place: int, digit: str) -> None:
    trace_id = made()
    changed = trace_id[:place] + digit + trace_id[place + 1 :]
    if changed != trace_id:
        with pytest.raises(TraceNotFound):
            IDS.made_at(changed)


@pytest.mark.parametrize("trace_id", ["", "0" * 32, "ab", "x" * 32, "0" * 64])
def test_what_never_was_an_id_is_unknown(trace_id: str) -> None:
    with pytest.raises(TraceNotFound):
        IDS.made_at(trace_id)

"""Reading order."""

from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling.order import reading_order
from ragcore.model import Box

COORDINATES = st.integers(0, 60).map(float)
BOXES = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES).map(
    lambda box: (box[0], box[1], box[0] + box[2] + 1, box[1] + box[3] + 1)
)


@given(st.lists(BOXES, max_size=25), st.booleans())
def test_every_box_is_read_once(boxes: list[Box], right_to_left: bool) -> None:
    order = reading_order(boxes, right_to_left=right_to_left)
    assert sorted(order) == list(range(len(boxes)))


def test_a_centred_title_comes_before_a_short_heading() -> None:
    title, heading = (230.0, 80.0, 360.0, 100.0), (78.0, 111.0, 140.0, 128.0)
    paragraph = (78.0, 136.0, 516.0, 194.0)
    assert reading_order([heading, paragraph, title]) == [2, 0, 1]


def test_columns_are_read_one_after_the_other() -> None:
    left = [(70.0, 100.0, 300.0, 200.0), (70.0, 210.0, 300.0, 400.0)]
    right = [(320.0, 100.0, 550.0, 200.0), (320.0, 210.0, 550.0, 400.0)]
    assert reading_order([right[1], left[1], right[0], left[0]]) == [3, 1, 2, 0]
    assert reading_order([right[1], left[1], right[0], left[0]], right_to_left=True) == [2, 0, 3, 1]


def test_what_spans_the_columns_divides_them() -> None:
    title = (70.0, 40.0, 550.0, 70.0)
    left = [(70.0, 100.0, 300.0, 200.0), (70.0, 210.0, 300.0, 400.0)]
    right = [(320.0, 100.0, 550.0, 200.0), (320.0, 210.0, 550.0, 400.0)]
    foot = (70.0, 420.0, 550.0, 440.0)
    assert reading_order([foot, *right, *left, title]) == [5, 3, 4, 1, 2, 0]

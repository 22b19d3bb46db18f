"""Boxes of turned pages."""

import pytest

from ragcore.adapters.docling.turning import turned_back

WIDTH, HEIGHT = 800.0, 600.0  # of the upright page


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, (10, 20, 110, 50)),
        (90, (20, 690, 50, 790)),
        (180, (690, 550, 790, 580)),
        (270, (550, 10, 580, 110)),
    ],
)
def test_a_box_goes_back_to_where_it_was_before_the_turn(
    degrees: int, expected: tuple[float, float, float, float]
) -> None:
    assert turned_back((10, 20, 110, 50), degrees, WIDTH, HEIGHT) == expected


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turning_on_and_back_is_no_change(degrees: int) -> None:
    box = (10.0, 20.0, 110.0, 50.0)
    size = (HEIGHT, WIDTH) if degrees in (90, 270) else (WIDTH, HEIGHT)
    there = turned_back(box, degrees, WIDTH, HEIGHT)
    assert turned_back(there, 360 - degrees, *size) == box

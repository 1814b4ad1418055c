import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oncoseg.report.contours import outlines


def corners(line: np.ndarray) -> set[tuple[float, float]]:
    """The (column, row) where a closed line turns."""
    steps = np.diff(line, axis=0)
    turns = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    return {(float(x), float(y)) for x, y in line[:-1][turns]}


def area(line: np.ndarray) -> float:
    """Signed area within a closed line, by the shoelace formula."""
    x, y = line.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_a_square_of_3_by_3_pixels_is_outlined_along_its_edges() -> None:
    mask = np.zeros((6, 7), np.uint8)
    mask[1:4, 2:5] = 1
    (line,) = outlines(mask)
    assert corners(line) == {(1.5, 0.5), (4.5, 0.5), (1.5, 3.5), (4.5, 3.5)}
    assert abs(area(line)) == 9
    assert len(line) == 12 + 1  # every side of a pixel once, and the first corner again
    assert line[0].tolist() == line[-1].tolist()


def test_an_outline_at_the_edge_of_the_image_is_closed() -> None:
    (line,) = outlines(np.ones((2, 3), bool))
    assert corners(line) == {(-0.5, -0.5), (2.5, -0.5), (-0.5, 1.5), (2.5, 1.5)}


def test_holes_and_separate_parts_have_lines_of_their_own() -> None:
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    assert sorted(abs(area(line)) for line in outlines(mask)) == [1, 9]
    assert len(outlines(np.array([[1, 0, 1]]))) == 2


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((4, 4), bool)) == []


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_outlines_enclose_exactly_what_is_marked(mask: np.ndarray) -> None:
    lines = outlines(mask)
    assert abs(sum(area(line) for line in lines)) == pytest.approx(mask.sum())
    for line in lines:  # steps of one pixel's side, along columns or rows
        assert (np.abs(np.diff(line, axis=0)).sum(axis=1) == 1).all()

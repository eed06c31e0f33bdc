import numpy as np
import pytest

from cellseg.runtime.errors import DataError
from cellseg.runtime.sizing.measured import measure_cells


def squares(edge: int, count: int) -> np.ndarray:
    labels = np.zeros((edge + 1, count * (edge + 1)), np.uint16)
    for number in range(count):
        labels[:edge, number * (edge + 1) : number * (edge + 1) + edge] = 2 * number + 1  # numbers have gaps
    return labels


def test_the_median_is_of_cells_and_the_range_of_pictures() -> None:
    across = 2 / np.sqrt(np.pi)
    found = measure_cells([squares(10, 50), squares(40, 3), np.zeros((4, 4), np.int32), squares(4, 3)])
    assert found.median == pytest.approx(10 * across, abs=0.1)
    assert found.low == pytest.approx(np.percentile([4, 10, 40], 5) * across, abs=0.1)
    assert found.high == pytest.approx(np.percentile([4, 10, 40], 95) * across, abs=0.1)


def test_a_few_like_pictures_do_not_make_a_narrow_range() -> None:
    found = measure_cells([squares(20, 5)])
    assert found.low == pytest.approx(found.median / 2, rel=0.01)
    assert found.high == pytest.approx(found.median * 2, rel=0.01)


def test_no_cell() -> None:
    with pytest.raises(DataError, match="no cell in any label image"):
        measure_cells([np.zeros((4, 4), np.int32)])

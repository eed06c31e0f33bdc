import numpy as np

from cellseg.runtime.kernels.paint import paint
from cellseg.runtime.kernels.split import CELL_RUN_DTYPE


def test_paint_writes_numbers_inside_the_rows_only():
    labels = np.zeros((2, 5), np.int32)
    runs = np.array([(4, 0, 5, 0), (5, 1, 3, 1), (6, 4, 5, 0), (7, 0, 5, 1)], CELL_RUN_DTYPE)
    paint(labels, 5, runs, np.array([7, 9], np.int32))
    assert labels.tolist() == [[0, 9, 9, 0, 0], [0, 0, 0, 0, 7]]

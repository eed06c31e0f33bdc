import numpy as np

from cellseg.runtime.kernels.paint import Painter
from cellseg.runtime.kernels.split import CELL_RUN_DTYPE


def test_numbers_are_written_inside_the_rows_only_and_the_rest_is_cleared():
    labels = np.full((2, 5), 3, np.int32)
    runs = np.array([(4, 0, 5, 0), (5, 1, 3, 1), (6, 4, 5, 0), (7, 0, 5, 1)], CELL_RUN_DTYPE)
    more = np.array([(5, 4, 5, 0)], CELL_RUN_DTYPE)
    batches = [(runs, np.array([7, 9], np.int32)), (more, np.array([11], np.int32))]
    Painter(batches).paint(labels, 5)
    assert labels.tolist() == [[0, 9, 9, 0, 11], [0, 0, 0, 0, 7]]


def test_without_cells_it_clears():
    labels = np.full((2, 5), 3, np.int32)
    Painter([]).paint(labels, 0)
    assert not labels.any()

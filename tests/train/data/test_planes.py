"""The planes that the loss compares with."""

import numpy as np

from cellseg.train.config import TrainConfig
from cellseg.train.data import targets
from cellseg.train.data.planes import make_targets


def test_the_boundary_lies_at_all_edges_or_only_where_cells_touch() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[2:7, 2:6], labels[2:7, 6:10] = 1, 2
    valid = np.ones(labels.shape, np.bool_)
    around, between = (
        make_targets(labels, valid, TrainConfig(boundary_at=at), np.zeros(0))["boundary"]
        for at in ("edges", "contacts")
    )
    np.testing.assert_array_equal(around, targets.boundary_band(labels))
    assert between[4].nonzero()[0].tolist() == [5, 6]
    assert not between[:, [0, 1, 2, 3, 4, 7, 8, 9]].any()
    assert (around >= between).all()

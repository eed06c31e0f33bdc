"""How often images are drawn: by kind and by cells."""

import numpy as np
import pytest

from cellseg.train.config import TrainConfig
from cellseg.train.data.crops import CropSource
from cellseg.train.data.samples import Sample
from cellseg.train.data.shares import shares


def test_balance_draws_rare_kinds_more_often() -> None:
    dark = np.zeros((8, 8, 3), np.uint8)
    stained = np.full((8, 8, 3), (200, 120, 220), np.uint8)
    labels = np.zeros((8, 8), np.int32)
    samples = [Sample(str(i), dark, labels) for i in range(9)] + [Sample("s", stained, labels)]
    assert [sample.kind for sample in samples] == ["dark"] * 9 + ["coloured"]

    as_they_come, between, alike = (shares(samples, balance, 0.0)[-1] for balance in (0.0, 0.5, 1.0))
    assert as_they_come == pytest.approx(0.1)
    assert between == pytest.approx(0.25)
    assert alike == pytest.approx(0.5)
    source = CropSource(samples, TrainConfig(balance=1.0))
    drawn = [source.sample_of(i).kind for i in range(400)]
    assert 120 < drawn.count("coloured") < 280


def test_crowding_draws_images_of_a_kind_by_their_cells() -> None:
    def picture(kind: int, cells: int) -> Sample:
        labels = np.zeros((8, 8), np.int32)
        labels[0, :cells] = range(2, 2 + cells)  # numbers need not start at 1
        return Sample("s", np.full((8, 8, 1), kind, np.uint8), labels)

    samples = [picture(0, 1), picture(0, 4), picture(0, 0), picture(255, 2)]
    np.testing.assert_allclose(shares(samples, 0.0, 1.0), np.array([1, 4, 1, 2]) / 8)
    np.testing.assert_allclose(shares(samples, 0.0, 0.5), np.array([1, 2, 1, 2**0.5]) / (4 + 2**0.5))
    # Kinds alike: how crowded an image is matters within its own kind only.
    np.testing.assert_allclose(shares(samples, 1.0, 1.0), np.array([1 / 6, 4 / 6, 1 / 6, 1]) / 2)

    drawn = [CropSource(samples, TrainConfig(crowding=1.0)).sample_of(i) for i in range(400)]
    assert sum(one is samples[1] for one in drawn) == pytest.approx(200, abs=50)

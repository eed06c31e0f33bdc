import itertools

import numpy as np
import pytest

from cellseg.export import parity
from cellseg.export.assemble import Exported
from cellseg.export.graph import Reference
from cellseg.export.network import Trained
from cellseg.export.tiles import generate
from cellseg.runtime.backends import open_backend


def test_a_comparison_with_itself_is_perfect(exported: Exported, trained: Trained) -> None:
    images = np.stack([image for image, _ in generate(3, 64, 3)])
    planes = parity.reference_planes(Reference(trained.network, exported.spec.heads), images)
    found = parity.compare(planes, planes, exported.spec)
    assert found == parity.Figures(0, 0, 1, 1, 1, 0, tiles=3, cells=found.cells)
    assert found.cells > 5
    assert not found.beyond(parity.LIMITS["fp32"])


def test_each_limit_is_watched() -> None:
    figures = parity.Figures(2, 0.5, 0.9, 0.8, 0.7, 0.1, tiles=1, cells=10)
    assert figures.beyond(parity.LIMITS["fp32"]) == [
        "plane_max 2 (at most 1)",
        "plane_mean 0.5 (at most 0.01)",
        "mask_iou 0.9 (at least 0.9999)",
        "f1_50 0.8 (at least 0.999)",
        "f1_90 0.7 (at least 0.998)",
        "count_difference 0.1 (at most 0.001)",
    ]


@pytest.mark.parametrize("row", parity.LIMITS)
@pytest.mark.parametrize("cells", [1, 20, 158, 100_000])
def test_rounding_may_cost_one_cell(row: str, cells: int) -> None:
    def lost(count: int, at_90: int = 0) -> list[str]:
        matched, total = cells - count, 2 * cells - count
        f1_50, f1_90 = 2 * matched / total, 2 * (matched - at_90) / total
        figures = parity.Figures(0, 0, 1, f1_50, f1_90, count / cells, tiles=1, cells=cells)
        return figures.beyond(parity.LIMITS[row])

    exact = row == "fp32"
    assert not lost(0)
    assert bool(lost(1)) == bool(lost(0, at_90=1)) == (exact and cells < 1_000)
    if cells > 1:
        assert lost(cells)
        assert bool(lost(2)) == (cells == 20 or (cells == 158 and row in ("fp32", "fp16")))


def test_limits_grow_with_coarser_arithmetic() -> None:
    rows = [parity.LIMITS[name] for name in ("fp32", "fp16", "bf16", "int8")]
    for fine, coarse in itertools.pairwise(rows):
        assert coarse.plane_max >= fine.plane_max
        assert coarse.f1_90 <= fine.f1_90


def test_a_lost_cell_is_seen(exported: Exported, trained: Trained) -> None:
    images = np.stack([image for image, _ in generate(2, 64, 3)])
    planes = parity.reference_planes(Reference(trained.network, exported.spec.heads), images)
    other = planes.copy()
    other[0] = 0
    found = parity.compare(planes, other, exported.spec)
    assert found.plane_max > 200
    assert found.mask_iou < 0.8
    assert found.f1_50 < 0.8
    assert found.count_difference > 0.2


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_engine_planes_come_in_order(exported: Exported, batch: int) -> None:
    images = np.stack([image for image, _ in generate(5, 64, 3)])
    with open_backend(exported.path, "cpu") as backend:
        together = parity.engine_planes(backend, images, batch)
        one_by_one = np.concatenate([parity.engine_planes(backend, image[None]) for image in images])
    np.testing.assert_array_equal(together, one_by_one)


def test_an_empty_scene_passes(exported: Exported) -> None:
    nothing = np.zeros((2, 3, 32, 32), np.uint8)
    found = parity.compare(nothing, nothing, exported.spec)
    assert not found.beyond(parity.LIMITS["fp32"])

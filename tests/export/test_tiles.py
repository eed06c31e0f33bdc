from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.export import tiles
from cellseg.runtime.errors import DataError, ImageError

from .conftest import small_config


def write_pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate(sizes):
        cv2.imwrite(str(folder / f"{index:03}.png"), rng.integers(0, 256, (height, width, 3), np.uint8))
    return folder


def test_tiles_of_a_folder_show_every_picture_before_a_second_of_one(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set" / "image", [(100, 140)] * 4)
    found = tiles.from_folder(folder.parent, channels=3, count=6, edge=64)
    assert found.shape == (6, 64, 64, 3)
    few = tiles.from_folder(folder, channels=1, count=2, edge=64)
    assert few.shape == (2, 64, 64, 1)


def test_small_pictures_are_continued_by_reflection(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", [(20, 30)])
    found = tiles.from_folder(folder, channels=3, count=3, edge=64)
    assert found.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(found[0, 20:30, :30], found[0, 18:8:-1, :30])


@pytest.mark.parametrize("height", [1, 2])
def test_a_sliver_of_a_picture_does_not_fail(tmp_path: Path, height: int) -> None:
    folder = write_pictures(tmp_path / "p", [(height, 5)])
    assert tiles.from_folder(folder, channels=3, count=1, edge=16).shape == (1, 16, 16, 3)


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", [(32, 32)] * 2)
    with pytest.raises(DataError, match=r"give 2 tiles of 32 pixels, wanted 5 at least"):
        tiles.gather(folder, small_config(), count=8, edge=32, minimum=5)


def test_folders_that_do_not_serve_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        tiles.gather(tmp_path / "nowhere", small_config(), count=4, edge=32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no pictures"):
        tiles.gather(tmp_path / "empty", small_config(), count=4, edge=32)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no picture")
    with pytest.raises(ImageError, match=r"a\.txt"):
        tiles.gather(tmp_path / "text", small_config(), count=4, edge=32)


def test_validation_images_are_found_from_where_training_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "data" / "val" / "image", [(40, 40)] * 3)
    checkpoint = tmp_path / "work_dirs" / "run" / "best.pt"
    config = small_config(dataset_path="data")
    assert tiles.validation_folder(config) is None
    assert tiles.validation_folder(config, checkpoint) == folder
    found = tiles.gather(None, config, count=4, edge=32, near=checkpoint)
    assert str(folder) in found.source
    monkeypatch.chdir(tmp_path)
    assert tiles.validation_folder(config) == Path("data/val/image")


def test_generated_tiles_are_the_same_every_time_and_hold_cells() -> None:
    first, second = (list(tiles.generate(4, 96, 3)) for _ in range(2))
    for (image, labels), (again, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image, again)
        assert labels.max() > 10
        assert 0.1 < (labels > 0).mean() < 0.8
    assert first[0][0].mean() < 100 < first[1][0].mean()
    assert next(tiles.generate(1, 32, 1))[0].shape == (32, 32, 1)

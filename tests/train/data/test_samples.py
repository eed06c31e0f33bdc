"""The directory layout: what is read, derived, re-split and refused."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime.errors import CellsegError, DataError
from cellseg.runtime.intensity import normalization
from cellseg.train.config import TrainConfig
from cellseg.train.data import targets
from cellseg.train.data.samples import read_dataset, read_split

Configure = Callable[..., TrainConfig]


def picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])
    return path


def test_images_come_as_the_runtime_would_feed_them(cells: Path, configure: Configure) -> None:
    training, validation = read_dataset(configure())
    assert [s.name for s in training] == ["train0", "train1", "train2", "train3"]
    assert [s.name for s in validation] == ["val0", "val1"]
    raw = cv2.imread(str(cells / "train/image/train2.png"), cv2.IMREAD_UNCHANGED)[..., None]
    np.testing.assert_array_equal(training[2].image, normalization.measure(raw).apply(raw))
    labels = cv2.imread(str(cells / "train/label/train2.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(training[2].labels, labels)
    assert training[2].labels.dtype == np.int32


@pytest.mark.parametrize(
    ("channels", "array"),
    [
        (3, np.full((64, 64), 9, np.uint16)),
        (1, np.zeros((64, 64, 3), np.uint8)),
        (3, np.zeros((64, 64), np.float32)),
    ],
)
def test_depth_and_colour_are_adapted(
    cells: Path, configure: Configure, channels: int, array: np.ndarray
) -> None:
    (cells / "train/image/train0.png").unlink()
    picture(cells / "train/image/train0.tif", array)
    sample = read_dataset(configure(in_channels=channels))[0][0]
    assert sample.image.shape == (64, 64, channels)
    assert sample.image.dtype == np.uint8


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_channels_are_never_taken_for_alpha_or_colours(cells: Path, configure: Configure, count: int) -> None:
    """The last of several stains was dropped as if it were alpha, and the others were mixed."""
    (cells / "train/image/train0.png").unlink()
    planes = np.random.default_rng(0).integers(0, 255, (count, 64, 64), np.uint8)
    tifffile.imwrite(cells / "train/image/train0.tif", planes, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(DataError, match=rf"train0\.tif: has {count} channels .*, channels: \[0\]"):
        read_dataset(configure())
    # One that is chosen is read as inference reads it; the others of the folder have one, number 0.
    sample = read_dataset(configure(channels=0))[0][0]
    np.testing.assert_array_equal(sample.image[:, :, 0], normalization.measure(planes[0]).apply(planes[0]))


@pytest.mark.parametrize("name", ["x0.ome.tif", "well A:1.tif", "x..tif", "what?.tif", "a.b.btf"])
def test_names_of_every_kind(cells: Path, configure: Configure, name: str) -> None:
    """Names were cut in two ways, which agree for plain ones only."""
    for folder, suffix in (("image", ""), ("label", "")):
        old = cells / "train" / folder / "train0.png"
        pixels = cv2.imread(str(old), cv2.IMREAD_UNCHANGED)
        old.unlink()
        tifffile.imwrite(old.with_name(f"{name}{suffix}"), pixels)
    training = read_dataset(configure())[0]
    assert len(training) == 4
    assert any(sample.name not in ("train1", "train2", "train3") for sample in training)


def test_missing_maps_are_derived(configure: Configure) -> None:
    sample = read_dataset(configure())[0][0]
    assert sample.boundary is None  # derived from each crop, so that its width is the crop's
    np.testing.assert_array_equal(sample.density, targets.density_map(sample.labels))
    assert read_dataset(configure(use_density=0))[0][0].density is None


def test_maps_that_are_there_are_used(cells: Path, configure: Configure) -> None:
    boundary, density = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.float32)
    boundary[5], density[7, 7] = 255, 2.5
    grey = np.zeros((64, 64), np.uint8)
    grey[20:22, 20:22] = 50
    for i in range(4):
        picture(cells / f"train/corner/train{i}.bmp", boundary)
        if i % 2:
            picture(cells / f"train/density/train{i}.tif", density)
        else:
            picture(cells / f"train/density/train{i}.png", grey)
    training = read_dataset(configure())[0]
    np.testing.assert_array_equal(training[0].boundary, boundary > 0)
    np.testing.assert_array_equal(training[1].density, density)  # floats are cells per pixel
    count = np.unique(training[0].labels).size - 1
    assert training[0].density.sum() == pytest.approx(count)  # grey levels know the shape only
    assert training[0].density[20, 20] == pytest.approx(count / 4)


def test_a_key_that_ready_made_maps_make_idle_is_named(
    cells: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        picture(cells / f"train/corner/train{i}.png", np.zeros((64, 64), np.uint8))
    with caplog.at_level(logging.WARNING):
        read_dataset(configure())
        assert not caplog.records
        read_dataset(configure(boundary_at="contacts", density_spread=0.4))  # there is no density/
    assert [record.getMessage() for record in caplog.records] == [
        f"{cells / 'train/corner'}: its maps are used as they are; boundary_at has no effect"
    ]


def test_ripples_of_a_jpeg_are_no_boundary(cells: Path, configure: Configure) -> None:
    line = np.zeros((64, 64), np.uint8)
    line[:, 30:32] = 255
    for i in range(4):
        picture(cells / f"train/corner/train{i}.jpg", line)
    boundary = read_dataset(configure())[0][0].boundary
    np.testing.assert_array_equal(boundary, line > 0)


def test_a_mask_becomes_its_components_and_is_mentioned_once(
    cells: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (cells / "train/label").iterdir():
        mask = np.zeros((64, 64), np.uint8)
        mask[2:9, 2:9] = mask[30:40, 30:40] = 255
        picture(path, mask)
    with caplog.at_level(logging.WARNING):
        training, _ = read_dataset(configure())
    assert all(sample.labels.max() == 2 for sample in training)
    assert len(caplog.records) == 1
    assert "connected components" in caplog.text


def test_images_without_cells_are_welcome_but_not_alone(cells: Path, configure: Configure) -> None:
    labels = sorted((cells / "train/label").iterdir())
    for path in labels[1:]:
        picture(path, np.zeros((64, 64), np.uint16))
    assert not read_dataset(configure())[0][3].labels.any()
    picture(labels[0], np.zeros((64, 64), np.uint16))
    with pytest.raises(DataError, match="no cell"):
        read_dataset(configure())


def test_huge_label_numbers_are_renumbered(cells: Path, configure: Configure) -> None:
    labels = np.zeros((64, 64), np.uint32)
    labels[4:9, 4:9], labels[20:30, 20:30] = 2**31 + 5, 7
    (cells / "train/label/train0.png").unlink()
    picture(cells / "train/label/train0.tif", labels)
    sample = read_dataset(configure())[0][0]
    assert sorted(np.unique(sample.labels)) == [0, 1, 2]
    assert ((sample.labels > 0) == (labels > 0)).all()


@pytest.mark.parametrize("folder", ["train", "train/image", "val/label", "."])
def test_a_missing_folder_is_named(cells: Path, configure: Configure, folder: str) -> None:
    config = configure()
    shutil.rmtree(cells / folder)
    with pytest.raises(DataError, match="no such folder") as error:
        read_dataset(config)
    assert str(cells / folder) in str(error.value)


def test_several_data_sets_are_read_one_after_the_other(
    cells: Path, tmp_path: Path, configure: Configure
) -> None:
    other = tmp_path / "other"
    shutil.copytree(cells / "train", other / "train")
    paths = [{"path": str(cells), "share": 2}, str(other)]
    training, validation = read_dataset(configure(dataset_path=paths))
    assert [(s.name, s.origin) for s in training] == [(f"train{i}", at) for at in (0, 1) for i in range(4)]
    assert [s.origin for s in validation] == [0, 0]
    shutil.rmtree(cells / "val")
    with pytest.raises(DataError, match=r"none of these folders holds val/"):
        read_dataset(configure(dataset_path=paths))
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_dataset(configure(dataset_path=[str(cells), "nowhere"]))


def test_a_label_can_say_that_nothing_is_known(cells: Path, configure: Configure) -> None:
    labels = np.zeros((64, 64), np.uint16)
    labels[4:9, 4:9], labels[:, 40:] = 7, 65535
    picture(cells / "train/label/train0.png", labels)
    sample = read_dataset(configure(ignore_label=65535))[0][0]
    assert sample.ignored is not None
    np.testing.assert_array_equal(sample.ignored, labels == 65535)
    assert set(np.unique(sample.labels)) == {0, 7}
    assert sample.density is not None
    assert sample.density.sum() == pytest.approx(1, abs=1e-3)
    assert read_dataset(configure(ignore_label=65535))[0][1].ignored is None
    assert read_dataset(configure())[0][0].labels.max() == 65535


def float_labels(root: Path) -> Path:
    (root / "train/label/train1.png").unlink()
    return picture(root / "train/label/train1.tif", np.ones((64, 64), np.float32) / 3)


def rgb_labels(root: Path) -> Path:
    return picture(root / "train/label/train1.png", np.zeros((64, 64, 3), np.uint8))


def other_size(root: Path) -> Path:
    return picture(root / "train/label/train1.png", np.ones((64, 60), np.uint16))


def other_size_of_corner(root: Path) -> Path:
    for i in range(4):
        path = picture(root / f"train/corner/train{i}.png", np.zeros((9, 9), np.uint8))
    return path.with_stem("train0")


def lonely_image(root: Path) -> Path:
    (root / "train/label/train1.png").unlink()
    return root / "train" / "image" / "train1.png"


def lonely_label(root: Path) -> Path:
    (root / "train/image/train1.png").unlink()
    return root / "train" / "label" / "train1.png"


def empty_file(root: Path) -> Path:
    path = root / "train/image/train1.png"
    path.write_bytes(b"")
    return path


def damaged_file(root: Path) -> Path:
    path = root / "train/image/train1.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


def damaged_label(root: Path) -> Path:
    path = root / "train/label/train1.png"
    path.write_bytes(b"no picture")
    return path


def partial_corner(root: Path) -> Path:
    picture(root / "train/corner/train0.png", np.zeros((64, 64), np.uint8))
    return root / "train" / "corner"


@pytest.mark.parametrize(
    "spoil",
    [
        float_labels,
        rgb_labels,
        other_size,
        other_size_of_corner,
        lonely_image,
        lonely_label,
        empty_file,
        damaged_file,
        damaged_label,
        partial_corner,
    ],
)
def test_a_bad_file_is_named_in_one_line(
    cells: Path, configure: Configure, spoil: Callable[[Path], Path]
) -> None:
    culprit = spoil(cells)
    with pytest.raises(CellsegError) as error:
        read_dataset(configure())
    assert culprit.name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_data_set_of_one_image_can_be_read(cells: Path, configure: Configure) -> None:
    for i in (1, 2, 3):
        for folder in ("image", "label"):
            (cells / f"train/{folder}/train{i}.png").unlink()
    assert len(read_split(cells / "train", configure())) == 1


def test_resampling_is_seeded_and_moves_nothing(cells: Path, configure: Configure) -> None:
    before = sorted(cells.rglob("*"))

    def names(**changes: object) -> tuple[list[str], list[str]]:
        training, validation = read_dataset(configure(resample=True, **changes))
        return [s.name for s in training], [s.name for s in validation]

    training, validation = names(resample_num=3)
    assert sorted(training + validation) == ["train0", "train1", "train2", "train3", "val0", "val1"]
    assert len(validation) == 3
    assert names(resample_num=3) == (training, validation)
    assert any(names(resample_num=3, randseed=seed) != (training, validation) for seed in range(1, 5))
    assert names(resample_by_manual=["train1", "val0.png"])[1] == ["train1", "val0"]
    (cells / "names.txt").write_text("train2\n\nval1\n")
    assert names(resample_by_manual=str(cells / "names.txt"))[1] == ["train2", "val1"]
    (cells / "names.txt").unlink()
    assert sorted(cells.rglob("*")) == before
    shutil.rmtree(cells / "val")
    assert len(names()[1]) == 1


def test_numbers_name_images_as_in_the_original(cells: Path, configure: Configure) -> None:
    for folder in ("image", "label"):
        (cells / f"train/{folder}/train3.png").rename(cells / f"train/{folder}/17.png")
    config = configure(resample=True, resample_by_manual=[17])
    assert [s.name for s in read_dataset(config)[1]] == ["17"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resample_num": 6}, "at most 5"),
        ({"resample_by_manual": ["nobody"]}, "nobody"),
        ({"resample_by_manual": "nowhere.txt"}, "nowhere.txt"),
        (
            {"resample_by_manual": ["train0", "train1", "train2", "train3", "val0", "val1"]},
            "no training image",
        ),
    ],
)
def test_an_impossible_split_is_refused(configure: Configure, changes: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_dataset(configure(resample=True, **changes))

"""Folders of label images: what is read, what is refused and how."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import DataError
from cellseg.runtime.evaluation.folders import (
    LabelFolder,
    check_partners,
    list_files,
    read_groups,
    read_labels,
)

CELLS = np.zeros((6, 8), np.uint16)
CELLS[1:3, 1:3], CELLS[4, 5:] = 3, 700


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, array)
    else:
        assert cv2.imwrite(str(path), array)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", np.uint16), ("a.tif", np.int32), ("a.tiff", np.int64), ("a.tif", np.uint16)],
)
def test_round_trip(tmp_path: Path, name: str, dtype: type) -> None:
    labels = read_labels(write(tmp_path / name, CELLS.astype(dtype)))
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels, CELLS)


def test_single_axes_are_dropped(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.tif", CELLS[None, :, :, None])), CELLS)
    assert read_labels(write(tmp_path / "thin.tif", CELLS[:, :1])).shape == (6, 1)


def test_results_of_infer(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "slide" / "labels.ome.zarr", mode="w")
    group["0"] = CELLS.astype(np.int32)
    folder = LabelFolder.open(tmp_path)
    assert list(folder.files) == ["slide"]
    np.testing.assert_array_equal(folder.read("slide"), CELLS)


def test_semantic_masks_are_split_into_components(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (CELLS > 0).astype(np.uint8) * 255)
    write(tmp_path / "b.png", (CELLS == 3).astype(np.uint8) * 255)
    folder = LabelFolder.open(tmp_path)
    assert folder.semantic
    np.testing.assert_array_equal(folder.read("a"), np.where(CELLS == 3, 1, np.where(CELLS, 2, 0)))


def test_one_cell_in_two_pieces_stays_one_beside_numbered_images(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (CELLS > 0).astype(np.uint8))
    write(tmp_path / "b.png", CELLS)
    folder = LabelFolder.open(tmp_path)
    assert not folder.semantic
    assert folder.read("a").max() == 1


def test_a_single_cell_is_not_semantic(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (CELLS == 3).astype(np.uint8) * 255)
    assert not LabelFolder.open(tmp_path).semantic


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("rgb.png", np.zeros((4, 4, 3), np.uint8), "found uint8 of shape 4×4×3"),
        (
            "float.tif",
            np.full((4, 4), 0.5, np.float32),
            "found float32 with values that are no whole numbers",
        ),
        ("stack.tif", np.zeros((2, 4, 4), np.uint16), "found uint16 of 3 channels"),
        ("empty.png", b"", r"cannot be read as a label image \(the file is empty"),
        ("empty.tif", b"", "cannot be read as a label image"),
        ("text.tif", b"not a picture at all", "cannot be read as a label image"),
    ],
)
def test_refuses_what_is_no_label_image(
    tmp_path: Path, name: str, content: np.ndarray | bytes, found: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(DataError, match=found) as error:
        read_labels(path)
    assert str(path) in str(error.value)


def test_truncated_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 99, (64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"a\.png: cannot be read as a label image"):
        read_labels(path)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label: no such folder"):
        LabelFolder.open(tmp_path / "label")
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"no label images found; wanted files ending in \.png"):
        LabelFolder.open(tmp_path)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    write(tmp_path / "a.png", CELLS)
    write(tmp_path / "a.tif", CELLS)
    with pytest.raises(DataError, match=r"a\.png has the same name"):
        list_files(tmp_path, (".png", ".tif"), "label images")


def test_partners(tmp_path: Path) -> None:
    files = {name: tmp_path / "image" / f"{name}.png" for name in "abcde"}
    check_partners(files, files, tmp_path)
    with pytest.raises(DataError, match=r"image: b\.png, c\.png, d\.png and 1 more without .* in .*label;"):
        check_partners(files, {"a": tmp_path}, tmp_path / "label")


def test_groups(tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    table.write_text("id,split,modality\na,val,fluo\nb.png,val,color\n", encoding="utf-8-sig")
    assert read_groups(table, "modality") == {"a": "fluo", "b": "color"}
    with pytest.raises(DataError, match="no column 'stain'; found id, split, modality"):
        read_groups(table, "stain")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_groups(tmp_path / "absent.csv", "modality")
    table.write_bytes(b"")
    with pytest.raises(DataError, match="found no rows"):
        read_groups(table, "modality")


@pytest.mark.parametrize("shape", [(0, 64), (64, 0), (0, 0)])
def test_an_image_without_rows_or_columns(shape: tuple[int, int], tmp_path: Path) -> None:
    """OpenCV's components of nothing end the process with a signal: nothing may get there."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), tile=(32, 32))
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        for name, size in zip(("ImageLength", "ImageWidth"), shape, strict=True):
            tags[name].overwrite(size)
    with pytest.raises(
        DataError, match=r"a\.tif: holds \d+×\d+ pixels; replace the file|a\.tif: cannot be read"
    ):
        LabelFolder.open(tmp_path)


def test_groups_that_are_no_table(tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    table.write_text("id,modality\na,fluo,more\n")
    with pytest.raises(DataError, match="line 2 has 3 cells, the first line 2"):
        read_groups(table, "modality")
    table.write_text("id,modality\na\n")
    assert read_groups(table, "modality") == {"a": ""}
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(DataError, match="it is a pipe, wanted a file"):
        read_groups(table, "modality")

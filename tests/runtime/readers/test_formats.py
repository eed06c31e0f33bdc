"""One table says what is a picture, to all who ask; what is refused is refused everywhere."""

import numpy as np
import pytest
import tifffile

from cellseg.runtime.batch.inputs import expand
from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.evaluation import folders
from cellseg.runtime.readers import formats, open_slide
from cellseg.runtime.readers.refused import REFUSED

IMAGE = np.zeros((32, 32, 3), np.uint8)


def test_the_table():
    assert len({suffix for each in formats.FORMATS for suffix in each.suffixes}) == sum(
        len(each.suffixes) for each in formats.FORMATS
    )
    assert not set(formats.SUFFIXES) & set(REFUSED)
    assert set(formats.SUFFIXES) <= set(folders.PICTURES)


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_folders_and_evaluation_take_the_same_files(tmp_path, suffix):
    (tmp_path / f"a{suffix.upper()}").write_bytes(b"x")
    assert [item.image for item in expand([tmp_path])] == [str(tmp_path / f"a{suffix.upper()}")]
    assert list(folders.list_files(tmp_path, folders.PICTURES, "pictures")) == ["a"]


@pytest.mark.parametrize("suffix", sorted(REFUSED))
def test_containers_whose_pixels_lie_elsewhere(tmp_path, suffix):
    """They begin as a TIFF does, and hold a thumbnail."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb")
    path = path.rename(tmp_path / f"slide{suffix.upper()}")
    with pytest.raises(ImageError, match=rf"{REFUSED[suffix][0][:10]}.*; \w") as caught:
        open_slide(path)
    assert len(str(caught.value)) < 300
    with pytest.raises(UsageError, match=f"holds no image; slide{suffix.upper()}: "):
        expand([tmp_path])
    with pytest.raises(Exception, match="no pictures found"):
        folders.list_files(tmp_path, folders.PICTURES, "pictures")


def test_a_raw_photograph_under_another_name(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        IMAGE,
        photometric="rgb",
        metadata=None,
        extratags=[(50706, 1, 4, b"\1\4\0\0", False)],
    )
    with pytest.raises(ImageError, match="camera's raw file"):
        open_slide(tmp_path / "a.tif")


def test_advice_for_a_folder_without_images_fits_what_lies_below(tmp_path):
    (tmp_path / "day1").mkdir()
    with pytest.raises(UsageError, match=r"holds no image; .* none lies below it"):
        expand([tmp_path])
    (tmp_path / "day1" / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"give '.*/\*\*/\*\.png'"):
        expand([tmp_path])


def test_results_are_no_images(tmp_path):
    for name in ("run.json", "overview.png"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(UsageError, match="holds results"):
        expand([tmp_path])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    assert [item.image for item in expand([f"{tmp_path}/**/*.png"])] == [str(tmp_path / "in" / "a.png")]

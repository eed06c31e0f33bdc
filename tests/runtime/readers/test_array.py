"""Arrays as pictures: in memory, loaded as they are read, with channels where they should not be."""

import numpy as np
import pytest
import zarr

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.readers.array import is_array
from cellseg.runtime.testing.readers import ReaderSuite, picture

RGB = picture((40, 50, 3), "uint8")


def whole(array, **options):
    reader = ArrayReader(array, **options)
    return reader.read(Region(0, 0, reader.height, reader.width))


class Sliced:
    """Looks like an array of Dask: shape, type, and slices that become values."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.asked = array, array.shape, array.dtype, []

    def __getitem__(self, index):
        self.asked.append(index)
        return Sliced(self.array[index])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class TestLazy(ReaderSuite):
    cases = (*ReaderSuite.cases, ((64, 50, 2), "float32"))

    def open(self, folder, pixels):
        return ArrayReader(Sliced(pixels if pixels.shape[2] > 1 else pixels[:, :, 0]))


class TestZarrArray(ReaderSuite):
    def open(self, folder, pixels):
        return ArrayReader(zarr.create_array(folder / "a.zarr", data=pixels, chunks=(16, 16, 1)))


def test_only_the_region_is_loaded():
    lazy = Sliced(RGB)
    reader = ArrayReader(lazy, channels=["green"])
    assert np.array_equal(reader.read(Region(3, 4, 5, 6))[:, :, 0], RGB[3:8, 4:10, 1])
    assert lazy.asked == [(slice(3, 8), slice(4, 10))]


def test_what_has_values_only():
    class Values:
        def __array__(self, dtype=None, copy=None):
            return RGB

    assert is_array(Values())
    assert not is_array("a.tif")
    assert not is_array(3)
    assert np.array_equal(whole(Values()), RGB)

    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("lost connection")

    with pytest.raises(ImageError, match=r"cannot be read as an array \(RuntimeError: lost connection\)"):
        ArrayReader(Broken())


@pytest.mark.parametrize("edge", [0, 255])
def test_alpha_is_left_out_as_in_files(edge):
    alpha = np.full((40, 50, 1), 255, np.uint8)
    alpha[:5] = edge
    reader = ArrayReader(np.concatenate([RGB, alpha], axis=2))
    assert reader.channel_names == ("red", "green", "blue")
    assert reader.notes == ("its fourth channel is taken for alpha",)
    assert np.array_equal(reader.read(Region(0, 0, 40, 50)), RGB)


def test_a_fourth_stain_is_no_alpha():
    for four in (picture((40, 50, 4), "uint8"), picture((40, 50, 4), "uint16")):
        assert ArrayReader(four).channels == 4
    named = np.concatenate([RGB, np.full((40, 50, 1), 255, np.uint8)], axis=2)
    assert ArrayReader(named, channel_names=["DAPI", "CD3", "CD8", "mask"]).channels == 4


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_channels_first(count):
    with pytest.raises(ImageError, match="has its channels first; give height × width × channels") as caught:
        ArrayReader(np.zeros((count, 256, 256), np.uint8))
    assert len(str(caught.value)) < 200
    assert ("image[0]" if count == 1 else "moveaxis(image, 0, -1)") in str(caught.value)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 40, 50), ()])
def test_other_shapes(shape):
    with pytest.raises(ImageError, match="is not one picture"):
        ArrayReader(np.zeros(shape, np.uint8))


def test_options_are_named_as_in_python():
    with pytest.raises(UsageError, match="there is no channel 'DAPI'; it has 0 'red', 1 'green', 2 'blue'"):
        ArrayReader(RGB, channels=["DAPI"])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "I;16"])
def test_pictures_of_pil(mode):
    Image = pytest.importorskip("PIL.Image")
    if mode == "I;16":
        stored = picture((40, 50, 1), "uint16")[:, :, 0]
        assert np.array_equal(whole(Image.fromarray(stored))[:, :, 0], stored)
        return
    picture_of = Image.fromarray(RGB).convert(mode)
    found = ArrayReader(picture_of)
    assert found.channels == (1 if mode in ("L", "LA", "1") else 3)
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(whole(picture_of), RGB)
    if mode == "P":
        assert np.array_equal(whole(picture_of), np.asarray(picture_of.convert("RGB")))

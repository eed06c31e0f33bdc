"""What every :class:`~cellseg.runtime.readers.SlideReader` must do.

A new reader is tested by a subclass that says how to write a picture in its format::

    class TestTiles(ReaderSuite):
        def open(self, folder, pixels):
            tifffile.imwrite(folder / "a.tif", pixels, tile=(32, 48))
            return open_slide(folder / "a.tif")
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import UsageError
from ..geometry.tiling import Region
from ..readers import SlideReader


def picture(shape: tuple[int, int, int], dtype: npt.DTypeLike, seed: int = 0) -> npt.NDArray[Any]:
    """Return a smooth picture with a sharp grid in it, so that shifts and swapped channels show.

    Parameters
    ----------
    shape
        (height, width, channels).
    dtype
        uint8, uint16 or float32.
    seed
        Changes the noise.
    """
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).random(shape)
    ramp = 0.4 * y / height + 0.4 * x / width + 0.1 * ((y % 7 == 0) | (x % 11 == 0))
    values = ramp[:, :, None] * (1 - 0.2 * np.arange(channels)) + 0.05 * noise
    full = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return np.asarray(values * full, dtype)


def area_average(pixels: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return an exact area average by repeating every pixel and taking means (slow, for small pictures)."""
    tall = np.repeat(pixels.astype(np.float64), height, axis=0).reshape(height, -1, *pixels.shape[1:]).mean(1)
    wide = np.repeat(tall, width, axis=1)
    return np.asarray(wide.reshape(height, width, -1, pixels.shape[2]).mean(2))


class ReaderSuite:
    """Conformance suite; see the module's example."""

    #: (height, width, channels) and value types of the pictures to try.
    cases: tuple[tuple[tuple[int, int, int], str], ...] = (
        ((97, 131, 3), "uint8"),
        ((97, 131, 1), "uint8"),
        ((64, 50, 1), "uint16"),
        ((64, 50, 3), "uint16"),
    )
    #: Largest difference that the format's coding makes, in grey levels.
    tolerance: float = 0

    def open(self, folder: Path, pixels: npt.NDArray[Any]) -> SlideReader:
        """Write ``pixels`` (height, width, channels) into ``folder`` and open it."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def _each(self) -> Any:
        for number, (shape, dtype) in enumerate(self.cases):
            folder = self.folder / str(number)
            folder.mkdir(exist_ok=True)
            pixels = picture(shape, dtype)
            with self.open(folder, pixels) as reader:
                yield pixels, reader

    def _close(self, found: npt.NDArray[Any], wanted: npt.NDArray[Any], slack: float = 0) -> None:
        assert found.shape == wanted.shape
        difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        if self.tolerance:  # lossy codings have outliers
            assert difference.mean() <= self.tolerance / 3 + slack
        else:
            assert difference.max() <= slack

    def test_describes_the_picture(self) -> None:
        """Size, type, names, scale and levels are those of the picture."""
        for pixels, reader in self._each():
            assert (reader.height, reader.width, reader.channels) == pixels.shape
            assert reader.dtype == pixels.dtype
            assert len(set(reader.channel_names)) == reader.channels
            assert reader.pixel_size is None or reader.pixel_size > 0
            assert reader.levels[0].downsample == 1.0
            assert list(reader.levels) == sorted(reader.levels, key=lambda level: level.downsample)
            assert reader.bad_blocks == ()

    def test_reads_the_whole(self) -> None:
        """A region as large as the picture gives the picture."""
        for pixels, reader in self._each():
            found = reader.read(Region(0, 0, reader.height, reader.width))
            assert found.dtype == reader.dtype
            self._close(found, pixels)

    def test_reads_regions(self) -> None:
        """Any region equals that part of the whole."""
        rng = np.random.default_rng(1)
        for _, reader in self._each():
            height, width = reader.height, reader.width
            whole = reader.read(Region(0, 0, height, width))
            regions = [
                Region(0, 0, 1, 1),
                Region(height - 1, width - 1, 1, 1),
                Region(height // 2, 0, 1, width),
            ]
            for _ in range(12):
                y, x = int(rng.integers(height)), int(rng.integers(width))
                regions.append(
                    Region(y, x, int(rng.integers(1, height - y + 1)), int(rng.integers(1, width - x + 1)))
                )
            for at in regions:
                assert np.array_equal(reader.read(at), whole[at.y : at.y1, at.x : at.x1])
                for order in (slice(None), slice(None, None, -1)):  # any array will do, contiguous or not
                    out = np.ones((at.height, at.width, reader.channels), reader.dtype)[:, order]
                    reader.read_into(at, out)
                    assert np.array_equal(out, whole[at.y : at.y1, at.x : at.x1])

    def test_reads_from_several_threads(self) -> None:
        """Reads from several threads do not disturb each other."""
        for _, reader in self._each():
            whole = reader.read(Region(0, 0, reader.height, reader.width))
            rows = [Region(y, 0, 1, reader.width) for y in range(reader.height)] * 2
            with ThreadPoolExecutor(4) as pool:
                for at, found in zip(rows, pool.map(reader.read, rows), strict=True):
                    assert np.array_equal(found[0], whole[at.y])

    def test_refuses_regions_outside(self) -> None:
        """A region that sticks out is refused."""
        for _, reader in self._each():
            for at in (
                Region(-1, 0, 2, 2),
                Region(0, 0, reader.height + 1, 1),
                Region(0, reader.width - 1, 1, 2),
                Region(0, 0, 0, 1),
            ):
                with pytest.raises(UsageError, match="does not lie inside"):
                    reader.read(at)

    def test_levels_show_the_same_picture(self) -> None:
        """Every level has its stated size and the same mean."""
        for pixels, reader in self._each():
            for number, level in enumerate(reader.levels):
                found = reader.read(Region(0, 0, level.height, level.width), number)
                assert found.shape == (level.height, level.width, reader.channels)
                scale = 1.0 if reader.dtype.kind == "f" else np.iinfo(reader.dtype).max
                assert abs(found.mean() - pixels.mean()) < 0.03 * scale

    def test_overview_is_an_area_average(self) -> None:
        """The overview is the exact area average of what it covers."""
        for pixels, reader in self._each():
            whole = reader.read(Region(0, 0, reader.height, reader.width))
            assert np.array_equal(reader.overview(10_000), whole)
            found = reader.overview(40)
            assert max(found.shape[:2]) == 40
            assert found.dtype == reader.dtype
            if len(reader.levels) == 1:
                self._close(found, area_average(pixels, *found.shape[:2]), slack=0.51)

    def test_sample_holds_pixels_of_the_picture(self) -> None:
        """The sample holds unchanged pixels and is the same each time."""
        for _, reader in self._each():
            whole = reader.read(Region(0, 0, reader.height, reader.width))
            assert np.array_equal(reader.sample(), whole)
            found = reader.sample(max_pixels=1000, window=16)
            assert found.shape[2] == reader.channels
            assert 256 <= found.shape[0] * found.shape[1] <= 1000
            known = {tuple(pixel) for pixel in whole.reshape(-1, reader.channels)}
            assert {tuple(pixel) for pixel in found.reshape(-1, reader.channels)} <= known
            assert np.array_equal(found, reader.sample(max_pixels=1000, window=16))

    def test_closes_twice(self) -> None:
        """Closing again does nothing."""
        for _, reader in self._each():
            reader.close()
            reader.close()

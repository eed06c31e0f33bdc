"""What every :class:`~cellseg.runtime.writers.Writer` must do.

A new writer is tested by a subclass that says how to make one and how to read its result::

    class TestCsv(WriterSuite):
        def create(self, folder, scene):
            return CellTable(folder / "cells.csv", Columns(scene.channel_names))

        def check(self, folder, scene):
            assert pyarrow.csv.read_csv(folder / "cells.csv").num_rows == len(scene.cells)
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ..errors import OutputError
from ..instances import Cells, InstanceStream, Strip
from ..model.spec import Head, SplitSettings
from ..writers import Writer


@dataclass(frozen=True, slots=True)
class Scene:
    """A segmented image."""

    #: Shape (H, W).
    labels: npt.NDArray[np.int32]
    cells: Cells
    #: Names of the channels that were measured.
    channel_names: tuple[str, ...]

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.labels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.labels.shape[1])


def scene(height: int = 700, width: int = 530, *, discs: int = 150, seed: int = 0) -> Scene:
    """Return an image of discs, some cut by the border, measured on two channels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((1, height, width), np.uint8)
    for _ in range(discs):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(mask[0], centre, int(rng.integers(3, 14)), 255, -1)
    image = rng.integers(0, 4000, (height, width, 2)).astype(np.uint16)
    with InstanceStream(height, width, (Head(name="mask"),), SplitSettings(), image_channels=2) as stream:
        strips = [*stream.push(mask, image), *stream.finish()]
    return Scene(
        np.concatenate([strip.labels for strip in strips]),
        Cells.concatenate([strip.cells for strip in strips]),
        ("DAPI", "CD 3+"),
    )


def cut(given: Scene, rows: Sequence[int]) -> list[Strip]:
    """Cut a scene into strips of `rows` rows each; the last takes the rest."""
    strips = []
    ends = np.minimum(np.cumsum([*rows, given.height]), given.height)
    tops = given.cells.columns["y0"]
    for top, end in zip([0, *ends[:-1]], ends, strict=True):
        first, last = (int(np.searchsorted(tops, row)) for row in (top, end))
        start = given.cells.outline_start
        part = Cells(
            {name: values[first:last] for name, values in given.cells.columns.items()},
            given.cells.outline[start[first] : start[last]],
            start[first : last + 1] - start[first],
        )
        strips.append(Strip(int(top), given.labels[top:end], part))
    return strips


class WriterSuite:
    """Conformance suite; see the module's example."""

    def create(self, folder: Path, given: Scene) -> Writer:
        """Make the writer of a scene; it writes into ``folder`` only."""
        raise NotImplementedError

    def check(self, folder: Path, given: Scene) -> None:
        """Read the result back and compare it with the scene."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def _run(self, name: str, given: Scene, rows: Sequence[int]) -> dict[str, bytes]:
        folder = self.folder / name
        folder.mkdir()
        with self.create(folder, given) as writer:
            for strip in cut(given, rows):
                writer.write(strip)
            writer.commit()
        return contents(folder)

    def test_round_trip(self) -> None:
        """The result says what was written."""
        given = scene()
        self._run("a", given, [100] * 6)
        self.check(self.folder / "a", given)

    def test_without_cells(self) -> None:
        """An image without cells has a sound result."""
        given = scene(discs=0)
        assert not len(given.cells)
        self._run("a", given, [300])
        self.check(self.folder / "a", given)

    def test_does_not_depend_on_the_strips(self) -> None:
        """The bytes are the same however the rows were cut."""
        given = scene()
        rng = np.random.default_rng(0)
        whole = self._run("whole", given, [])
        assert whole == self._run("thin", given, [7] * 90)
        assert whole == self._run("odd", given, rng.integers(1, 200, 9).tolist())
        assert whole == self._run("again", given, [])

    def _fail_after(self, folder: Path, given: Scene, strips: int) -> None:
        with self.create(folder, given) as writer:
            for strip in cut(given, [50, 50, 50])[:strips]:
                writer.write(strip)
            raise ZeroDivisionError

    def test_leaves_nothing_without_commit(self) -> None:
        """An error removes what there was."""
        given = scene(200, 100, discs=9)
        for strips in (0, 1, 3):
            folder = self.folder / f"after{strips}"
            folder.mkdir()
            with pytest.raises(ZeroDivisionError):
                self._fail_after(folder, given, strips)
            assert contents(folder) == {}

    def test_a_full_disk_is_one_clear_error(self) -> None:
        """A write that fails is named, and nothing is left."""
        given = scene(900, 900, discs=600)
        with smallest_files(600), pytest.raises(OutputError, match="cannot be written"):
            self._run("a", given, [100] * 8)
        assert contents(self.folder / "a") == {}


@contextmanager
def smallest_files(size: int) -> Iterator[None]:
    """Let every file of this process end at ``size`` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

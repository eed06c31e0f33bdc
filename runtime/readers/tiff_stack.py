"""The planes of one image of a TIFF, along its axes: from tifffile's series, or from an OME record.

A file may be one of many: the record that it carries, or the index next to it, speaks of all of them. Here
is decided what the file that was named stands for. This module knows nothing of pixels or channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..common.spelling import option
from ..errors import ImageError, UsageError
from .blocks import ByteSource
from .ome import Block, Members, OmeImage, Record, inside, read_record
from .tiff_pages import Page, palette_of

_REDUCED = 1


class MissingPlaneError(ImageError):
    """A plane lies in a file of the set that is not there, or that cannot be read.

    Parameters
    ----------
    path
        The file that was named.
    what
        The file that is wanted, and what is wrong with it.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}; put all files of the set into one folder")
        self.what = what


class Files:
    """The files of a set that were needed so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sources = {path: ByteSource(path)}
        self._tiffs: dict[Path, Any] = {}

    def source(self, path: Path) -> ByteSource:
        """Return the bytes of a file."""
        if path not in self._sources:
            self._sources[path] = ByteSource(path)
        return self._sources[path]

    def tiff(self, path: Path) -> Any:
        """Return a file, opened by tifffile.

        Raises
        ------
        ImageError
            It lies outside the folder of the named one.
        MissingPlaneError
            It is not there, or is no TIFF.
        """
        if path == self.path and path not in self._tiffs:
            self._tiffs[path] = tifffile.TiffFile(path)
        if path not in self._tiffs:
            folder = self.path.parent
            if not inside(path, folder):
                raise ImageError(
                    f"{self.path}: refers to {path.name!r} outside its own folder; move all parts into one"
                )
            name = path.relative_to(folder)
            if not path.is_file():
                raise MissingPlaneError(self.path, f"{name} of its set is missing")
            try:
                self._tiffs[path] = tifffile.TiffFile(path)
            except (OSError, ValueError) as error:
                raise MissingPlaneError(
                    self.path, f"{name} of its set cannot be read ({type(error).__name__})"
                ) from None
        return self._tiffs[path]

    def close_others(self) -> None:
        """Close the other files as far as tifffile needs them: their pages are known."""
        for path in [path for path in self._tiffs if path != self.path]:
            self._tiffs.pop(path).close()

    def close(self) -> None:
        """Close all."""
        for tiff in self._tiffs.values():
            tiff.close()
        for source in self._sources.values():
            source.close()


class Stack(ABC):
    """The planes of one image.

    Attributes
    ----------
    number
        The image's number in the file or in its record.
    axes, shape
        Names and lengths of the axes along which planes lie; possibly none.
    frame
        tifffile's page of the first plane in the named file.
    here
        The place of that plane.
    """

    number: int
    axes: str
    shape: tuple[int, ...]
    frame: Any
    here: tuple[int, ...]
    #: Resolutions, the full one included.
    levels: int = 1
    #: What the record says of this image, where there is one.
    ome: OmeImage | None = None

    @abstractmethod
    def page(self, place: Sequence[int], level: int = 0) -> Page:
        """Return the page of a plane.

        Raises
        ------
        MissingPlaneError
            The plane is not there.
        """


class SeriesStack(Stack):
    """One of tifffile's series."""

    def __init__(self, files: Files, number: int) -> None:
        self.number = number
        self._files, self._tiff = files, files.tiff(files.path)
        tiff = self._tiff
        series = tiff.series[number]
        self._series = [series, *_smaller(tiff, series, number)]
        self.levels = len(self._series)
        inner = series.keyframe.axes
        # Axes of one place say nothing; tifffile keeps them in files that it wrote itself.
        kept = [
            (axis, int(edge))
            for axis, edge in zip(series.axes, series.shape, strict=True)
            if edge != 1 or axis in inner
        ]
        axes = "".join(axis for axis, _ in kept)
        lead = len(axes) - len(inner)
        self.axes, self.shape = axes[:lead], tuple(edge for _, edge in kept[:lead])
        if axes[lead:] != inner or "Y" in self.axes or "X" in self.axes:
            raise ImageError(
                f"{files.path}: TIFF axes {series.axes} are not supported; save one picture per page"
            )
        first = 0
        if series.is_multifile:
            first = next((i for i, page in enumerate(series) if page and page.parent is tiff), 0)
        self.here = tuple(int(at) for at in np.unravel_index(first, self.shape)) if self.axes else ()
        self.frame = series.keyframe

    def page(self, place: Sequence[int], level: int = 0) -> Page:
        """Return the page of a plane."""
        series = self._series[level]
        index = int(np.ravel_multi_index(tuple(place), self.shape)) if self.axes else 0
        frame, start = series.keyframe, series.dataoffset
        raw = frame.compression == 1 and not frame.is_tiled and frame.fillorder == 1
        if raw and isinstance(start, int | np.integer):
            return self._contiguous(frame, int(start), index)
        page = series[index]
        if page is None:
            raise MissingPlaneError(self._files.path, f"plane {index} of its series is missing")
        return make_page(self._source(page), page, page.keyframe)

    def _contiguous(self, frame: Any, start: int, index: int) -> Page:
        """Return a plane of those that follow each other, possibly with one page standing for all.

        ImageJ writes so beyond 4 GB.
        """
        row = frame.imagewidth * frame.shaped[4] * np.dtype(frame.dtype).itemsize
        strip, plane = frame.rowsperstrip * row, frame.imagelength * row
        source, planes = self._source(frame), int(frame.shaped[0])
        begin, end = start + index * planes * plane, start + (index + 1) * planes * plane
        if end > source.size:
            raise ImageError(
                f"{source.path}: plane {index} ends at byte {end:,}, the file at {source.size:,}: it is cut "
                "short; copy it again"
            )
        within = np.arange(0, max(1, plane), max(1, strip))
        starts = (begin + plane * np.arange(planes)[:, None] + within).ravel()
        counts = np.tile(np.minimum(strip, plane - within), planes)
        return Page(source, frame, starts.tolist(), counts.tolist(), None, palette_of(frame))

    def _source(self, page: Any) -> ByteSource:
        """Return the file a page lies in; some sets are spread over several files of one folder."""
        path = self._files.path
        other = path.parent / page.parent.filehandle.name
        if page.parent is self._tiff or other == path:
            return self._files.source(path)
        if Path(page.parent.filehandle.dirname).resolve() != path.parent.resolve():
            raise ImageError(
                f"{path}: refers to {other.name!r} outside its own folder; move all parts into one"
            )
        return self._files.source(other)


class OmeStack(Stack):
    """One image of an OME record."""

    def __init__(self, files: Files, members: Members, image: OmeImage) -> None:
        self.number, self.axes, self.ome = image.index, image.axes, image
        self._files, self._members = files, members
        # A plane in the named file, or else the first that is anywhere.
        mine = [block for block in image.blocks if members.path(block) == files.path]
        block = min(mine or image.blocks, key=lambda block: block.place)
        self.frame = self._frame(block, block.page)
        self.shape = image.shape(int(self.frame.samplesperpixel))
        self.here = block.place
        if not all(0 <= at < edge for at, edge in zip(self.here, self.shape, strict=True)):
            self.here = (0,) * len(self.shape)
        self.levels = 1 + len(self.frame.subifds or ())

    def page(self, place: Sequence[int], level: int = 0) -> Page:
        """Return the page of a plane."""
        assert self.ome is not None
        found = self.ome.locate(place, self.shape, self._pages_of)
        if found is None:
            at = ", ".join(f"{axis.lower()} {n}" for axis, n in zip(self.axes, place, strict=True))
            raise MissingPlaneError(self._files.path, f"its record names no file for the plane {at}")
        block, number = found
        frame = self._frame(block, number, level)
        return make_page(self._files.source(self._members.path(block)), frame, frame)

    def _frame(self, block: Block, number: int, level: int = 0) -> Any:
        path = self._members.path(block)
        tiff = self._files.tiff(path)
        try:
            frame = tiff.pages[number]
            return frame if level == 0 else frame.pages[level - 1]
        except (IndexError, TypeError):
            raise MissingPlaneError(
                self._files.path, f"page {number} of {path.name}, which its record names, is missing"
            ) from None

    def _pages_of(self, block: Block) -> int | None:
        try:
            return len(self._files.tiff(self._members.path(block)).pages)
        except MissingPlaneError:
            return None


def make_page(source: ByteSource, page: Any, frame: Any) -> Page:
    """Describe one page; ``frame`` is the page whose layout it shares."""
    frame.decode  # noqa: B018 -- builds the decoder once, before threads ask for it
    return Page(
        source, frame, tuple(page.dataoffsets), tuple(page.databytecounts), page.jpegtables, palette_of(frame)
    )


def choose_stack(files: Files, series: int | None) -> tuple[Stack, list[str]]:
    """Return the image that a file stands for, and what the user should know of that choice.

    Parameters
    ----------
    files
        The file.
    series
        Number of the image; by default the largest in this file.

    Raises
    ------
    ImageError, UsageError
        There is none, or none of that number.
    """
    notes: list[str] = []
    tiff = files.tiff(files.path)
    # Micro-Manager's own index is more reliable than the record that it writes.
    if tiff.is_ome and not tiff.is_mmstack:
        record, uuid, note = read_record(files.path, str(tiff.ome_metadata or ""))
        if record is not None:
            members = Members(record, files.path, uuid)
            mine = [image for image in record.images if members.holds(image)]
            if mine:
                image = _choose_image(files.path, record, mine, series, notes)
                return OmeStack(files, members, image), notes
            if any(image.blocks for image in record.images):
                note = "its record speaks of other files: only this file's own tags count"
        notes += [note] if note else []
        tiff.is_ome = False
    number = _choose_series(files.path, tiff, series, notes)
    return SeriesStack(files, number), notes


def _choose_image(
    path: Path, record: Record, mine: Sequence[OmeImage], series: int | None, notes: list[str]
) -> OmeImage:
    if series is not None:
        found = [image for image in record.images if image.index == series and image.blocks]
        if not found:
            known = ", ".join(str(image.index) for image in record.images if image.blocks)
            raise UsageError(f"{path}: there is no series {series}; its record has {known}")
        return found[0]
    largest = max(image.height * image.width for image in mine)
    alike = [image for image in mine if image.height * image.width == largest]
    if len(alike) > 1:
        notes.append(
            f"series {alike[0].index} of {len(record.images)} (choose another with {option('series')})"
        )
    return alike[0]


def _choose_series(path: Path, tiff: Any, series: int | None, notes: list[str]) -> int:
    every = tiff.series
    if not every:
        raise ImageError(
            f"{path}: no image is found in the TIFF: it is cut short or damaged; copy or save it again"
        )
    if series is not None:
        if not 0 <= series < len(every):
            raise UsageError(f"{path}: there is no series {series}; it has 0 to {len(every) - 1}")
        return series
    areas = [s.keyframe.imagelength * s.keyframe.imagewidth for s in every]
    number = int(np.argmax(areas))
    if areas.count(areas[number]) > 1:
        notes.append(f"series {number} of {len(every)} (choose another with {option('series')})")
    return number


def _smaller(tiff: Any, series: Any, number: int) -> list[Any]:
    """Return the reduced versions of a series, largest first."""
    if len(series.levels) > 1:
        return list(series.levels[1:])
    # Plain pyramids keep each reduction as a page of its own.
    aspect = series.keyframe.imagewidth / series.keyframe.imagelength
    found = [
        s
        for s in tiff.series[number + 1 :]
        if s.keyframe.subfiletype & _REDUCED
        and s.axes == series.axes
        and s.dtype == series.dtype
        and abs(s.keyframe.imagewidth / s.keyframe.imagelength / aspect - 1) < 0.02
    ]
    return sorted(found, key=lambda s: -int(s.keyframe.imagelength))

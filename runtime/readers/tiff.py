"""The TIFF family: plain, BigTIFF, OME, ImageJ, SVS, QPTIFF; strips or tiles, planar or interleaved.

Finds the wanted planes of the wanted series at every resolution; :mod:`.tiff_pages` decodes them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..errors import ImageError, UsageError
from ..geometry.tiling import Region
from .base import DirectReader, Level, Pixels, choose_channels, default_channel_names, readable
from .blocks import SKIP, BlockCache, ByteSource, Workers, reason
from .tiff_metadata import channel_names, pixel_size
from .tiff_pages import (
    MissingCodecError,
    Page,
    as_levels,
    check_codec,
    check_page,
    palette_of,
    read_segment,
)

# Its complaints about damaged files reach the user as our errors; a program that sets up logging
# still gets them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

#: An unnamed axis of up to this many planes is taken for channels, a longer one for pages.
MAX_UNNAMED_CHANNELS = 4
#: Photometric interpretations whose samples are grey levels, colours or indices.
_PHOTOMETRIC = {0, 1, 2, 3, 6}
_RGB, _YCBCR, _REDUCED = 2, 6, 1
#: Aperio's YCbCr variant of JPEG 2000 is converted by OpenSlide only; 33005, the RGB one, is read here.
_APERIO_YCBCR = 33003


class OpenSlideNeededError(ImageError):
    """The file is sound, but its pixels must be decoded by OpenSlide."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: this JPEG 2000 variant (Aperio YCbCr, {_APERIO_YCBCR}) is read by OpenSlide only: "
            "pip install 'cellseg[slides]'"
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where one output channel of a level comes from."""

    page: Page
    #: Separate plane of the page, and the sample within its interleaved ones.
    plane: int
    sample: int


class TiffReader(DirectReader):
    """A TIFF of any size, decoded segment by segment.

    A damaged segment is found where its codec can tell. JPEG data has no checksum, and the codec used
    here does not hand on libjpeg's warnings: a JPEG tile with some bytes overwritten may be read as
    grey or shifted pixels without an error.

    Parameters
    ----------
    path
        The file.
    series
        Number of the image in a file of several; by default the largest.
    page, z, t
        Plane along an unnamed axis, depth, time; from 0, the default.
    channels
        Names or numbers of the channels to read; by default all.
    threads
        Threads that decode; by default one for each core, at most 8.
    skip_bad_tiles
        Read damaged segments as zero and list them in :attr:`bad_blocks` instead of raising.

    Raises
    ------
    ImageError
        The file is damaged, cut short or of a kind that is not supported.
    UsageError
        A series, page, plane or channel does not exist.
    """

    def __init__(
        self,
        path: Path,
        *,
        series: int | None = None,
        page: int | None = None,
        z: int | None = None,
        t: int | None = None,
        channels: Sequence[int | str] | None = None,
        threads: int | None = None,
        skip_bad_tiles: bool = False,
    ) -> None:
        self._files: dict[Path, ByteSource] = {}
        self._workers = Workers(threads)
        self._cache = BlockCache()
        self._skip = skip_bad_tiles
        self._bad: dict[str, None] = {}
        self._notes: list[str] = []
        self._tiff: Any = None
        try:
            self._open(path, series, {"page": page, "z": z, "t": t}, channels)
        except (ImageError, UsageError):
            self.close()
            raise
        except Exception as error:  # tifffile raises what it likes on damaged files
            self.close()
            raise ImageError(
                f"{path}: the TIFF is damaged or not supported ({reason(error)}); copy or save it again"
            ) from None

    def _open(
        self,
        path: Path,
        series: int | None,
        planes: dict[str, int | None],
        channels: Sequence[int | str] | None,
    ) -> None:
        self._files[path] = ByteSource(path)
        self._tiff = tifffile.TiffFile(path)
        number = self._choose_series(path, series)
        chosen = self._tiff.series[number]
        frame = chosen.keyframe
        _check_colours(path, frame)
        check_codec(path, frame)
        picked = self._choose_planes(path, chosen, planes)
        sources = self._sources(path, chosen, picked)
        stored = as_levels(sources[0].page, np.zeros((1, 1, sources[0].page.interleaved), frame.dtype))
        dtype = readable(stored.dtype, path)
        # The channel axis of a palette is made while reading.
        colour = sources[0].page.palette is not None
        pages = list({id(s.page): s.page for s in sources}.values())
        count = 3 if colour else len(sources)
        named = channel_names(self._tiff, number, [p.keyframe for p in pages]) if not colour else []
        is_rgb = colour or int(frame.photometric) in (_RGB, _YCBCR)
        names = named if len(named) == count else default_channel_names(count, colour=is_rgb)
        self._selection = choose_channels(names, channels, path)
        self._levels = [sources]
        sizes = [Level(pages[0].height, pages[0].width, 1.0)]
        for other in self._smaller(chosen, number):
            try:
                level = self._sources(path, other, picked)
            except ImageError:
                break  # the full resolution is sound; a damaged reduction is only slower
            first = level[0].page
            ratio = (sizes[0].height / first.height + sizes[0].width / first.width) / 2
            if len(level) != len(sources) or ratio <= sizes[-1].downsample:
                break
            self._levels.append(level)
            sizes.append(Level(first.height, first.width, ratio))
        super().__init__(
            path,
            dtype=dtype,
            channel_names=[names[i] for i in self._selection],
            levels=sizes,
            pixel_size=pixel_size(self._tiff, number, frame),
            notes=self._notes,
        )
        widest = (
            max(p.block_bytes * p.grid[1] * p.planes for p in pages if not p.raw)
            if any(not p.raw for p in pages)
            else 0
        )
        self._cache.capacity = max(self._cache.capacity, 3 * widest * len(pages) // 2)

    def _choose_series(self, path: Path, series: int | None) -> int:
        every = self._tiff.series
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
        alike = [i for i, s in enumerate(every) if areas[i] == areas[number]]
        if len(alike) > 1:
            self._notes.append(f"series {number} of {len(every)} (choose another with --series)")
        return number

    def _choose_planes(self, path: Path, series: Any, wanted: dict[str, int | None]) -> dict[str, int | None]:
        """Return the index along each leading axis; ``None`` for the axis whose planes are channels."""
        lead = series.axes[: len(series.axes) - len(series.keyframe.axes)]
        if series.axes[len(lead) :] != series.keyframe.axes or "Y" in lead or "X" in lead:
            raise ImageError(f"{path}: TIFF axes {series.axes} are not supported; save one picture per page")
        picked: dict[str, int | None] = {}
        unused = {name for name, value in wanted.items() if value is not None}
        for axis, length in zip(lead, series.shape, strict=False):
            option = {"Z": "z", "T": "t"}.get(axis, "page")
            value = wanted[option]
            unnamed = axis in "QI" and "C" not in lead and "S" not in series.keyframe.axes
            if axis == "C":
                picked[axis] = None
                continue
            if unnamed and value is None and length <= MAX_UNNAMED_CHANNELS:
                picked[axis] = None
                self._notes.append(f"its {length} pages are taken for channels (choose one with --page)")
                continue
            unused.discard(option)
            if value is not None and not 0 <= value < length:
                raise UsageError(f"{path}: there is no --{option} {value}; it has 0 to {length - 1}")
            if value is None and length > 1:
                self._notes.append(f"{option} 0 of {length} (choose another with --{option})")
            picked[axis] = value or 0
        wrong = sorted(name for name in unused if wanted[name] != 0)
        if wrong:
            raise UsageError(f"{path}: there is only one plane along --{wrong[0]} (axes {series.axes})")
        return picked

    def _sources(self, path: Path, series: Any, picked: dict[str, int | None]) -> list[_Source]:
        """Return where each channel of a series comes from, its pages checked."""
        lead = series.axes[: len(series.axes) - len(series.keyframe.axes)]
        shape = series.shape[: len(lead)]
        axes = zip(lead, shape, strict=True)
        ranges = [range(n) if (at := picked.get(axis, 0)) is None else range(at, at + 1) for axis, n in axes]
        sources = []
        for place in itertools.product(*ranges):
            index = int(np.ravel_multi_index(place, shape)) if lead else 0
            page = self._page(path, series, index)
            check_page(page)
            samples = range(page.interleaved)
            sources += [_Source(page, p, s) for p in range(page.planes) for s in samples]
        alpha = _alpha(series.keyframe)
        return [s for i, s in enumerate(sources) if not alpha or i % (alpha + 1) != alpha]

    def _page(self, path: Path, series: Any, index: int) -> Page:
        frame = series.keyframe
        start = series.dataoffset
        if start is not None and frame.compression == 1 and not frame.is_tiled and frame.fillorder == 1:
            # Contiguous, possibly with one page standing for all, as ImageJ writes beyond 4 GB.
            strip = frame.rowsperstrip * frame.imagewidth * frame.shaped[4] * np.dtype(frame.dtype).itemsize
            plane = frame.imagelength * frame.imagewidth * frame.shaped[4] * np.dtype(frame.dtype).itemsize
            strips = -(-frame.imagelength // max(1, frame.rowsperstrip))
            starts = [
                start + (index * frame.shaped[0] + p) * plane + i * strip
                for p in range(frame.shaped[0])
                for i in range(strips)
            ]
            counts = [min(strip, plane - i * strip) for _ in range(frame.shaped[0]) for i in range(strips)]
            return Page(self._source(path, frame), frame, starts, counts, None, palette_of(frame))
        page = series[index]
        if page is None:
            raise ImageError(f"{path}: plane {index} of its series is missing")
        frame = page.keyframe
        frame.decode  # noqa: B018 -- builds the decoder once, before threads ask for it
        return Page(
            self._source(path, page),
            frame,
            tuple(page.dataoffsets),
            tuple(page.databytecounts),
            page.jpegtables,
            palette_of(frame),
        )

    def _source(self, path: Path, page: Any) -> ByteSource:
        """Return the file a page lies in; OME images may be spread over several files of one folder."""
        other = path.parent / page.parent.filehandle.name
        if page.parent is self._tiff or other == path:
            return self._files[path]
        if Path(page.parent.filehandle.dirname).resolve() != path.parent.resolve():
            raise ImageError(
                f"{path}: refers to {other.name!r} outside its own folder; move all parts into one"
            )
        if other not in self._files:
            self._files[other] = ByteSource(other)
        return self._files[other]

    def _smaller(self, series: Any, number: int) -> list[Any]:
        """Return the reduced versions of a series, largest first."""
        if len(series.levels) > 1:
            return list(series.levels[1:])
        # Plain pyramids keep each reduction as a page of its own.
        aspect = series.keyframe.imagewidth / series.keyframe.imagelength
        found = [
            s
            for s in self._tiff.series[number + 1 :]
            if s.keyframe.subfiletype & _REDUCED
            and s.axes == series.axes
            and s.dtype == series.dtype
            and abs(s.keyframe.imagewidth / s.keyframe.imagelength / aspect - 1) < 0.02
        ]
        return sorted(found, key=lambda s: -int(s.keyframe.imagelength))

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged strips and tiles that were read as zero."""
        return tuple(self._bad)

    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        sources = self._levels[level]
        palette = sources[0].page.palette is not None
        # One job a segment; a segment of interleaved samples serves several channels.
        jobs: dict[tuple[int, int], tuple[Page, int, list[tuple[int, int]]]] = {}
        for channel, stored in enumerate(self._selection):
            source = sources[0 if palette else stored]
            sample = stored if palette else source.sample
            for index in source.page.touched(region, source.plane):
                job = jobs.setdefault((id(source.page), index), (source.page, index, []))
                job[2].append((sample, channel))

        def fill(job: tuple[Page, int, list[tuple[int, int]]]) -> None:
            page, index, channels = job
            part = page.part(index, region)
            target = out[part.y - region.y : part.y1 - region.y, part.x - region.x : part.x1 - region.x]
            try:
                block = read_segment(page, index, part, self._cache)
            except MissingCodecError:
                raise
            except ImageError as error:
                if not self._skip:
                    raise ImageError(f"{error}; {SKIP}") from None
                self._bad[str(error)] = None
                block = None
            if block is None:
                target[:, :, [channel for _, channel in channels]] = 0
                return
            block = as_levels(page, block)
            if [pair for pair in channels if pair[0] != pair[1]] or block.shape != target.shape:
                for sample, channel in channels:
                    target[:, :, channel] = block[:, :, sample]
            else:
                target[...] = block

        self._workers.each(fill, jobs.values())

    def close(self) -> None:
        """Close the files and end the threads."""
        self._workers.close()
        self._cache.clear()
        if self._tiff is not None:
            self._tiff.close()
        for source in self._files.values():
            source.close()


def _check_colours(path: Path, frame: Any) -> None:
    """Refuse colour spaces that would be read as something they are not."""
    if frame.dtype is None or not frame.imagelength or not frame.imagewidth:
        raise ImageError(
            f"{path}: the TIFF page of {frame.imagelength}×{frame.imagewidth} pixels and "
            f"{frame.bitspersample} bits is empty or of an unknown type"
        )
    name = getattr(frame.photometric, "name", frame.photometric)
    decoded_by_codec = frame.compression != 1 and frame.compression != 5 and frame.compression != 8
    if int(frame.photometric) not in _PHOTOMETRIC or (
        int(frame.photometric) == _YCBCR and not decoded_by_codec
    ):
        raise ImageError(f"{path}: TIFF colours of kind {name} are not supported; save it as RGB or grey")
    if frame.compression == _APERIO_YCBCR:
        raise OpenSlideNeededError(path)


def _alpha(frame: Any) -> int:
    """Return the position of the alpha sample of an RGB or grey page, or 0 where there is none."""
    extra = tuple(int(e) for e in frame.extrasamples or ())
    samples = int(frame.samplesperpixel)
    return samples - 1 if len(extra) == 1 and extra[0] in (1, 2) and samples in (2, 4) else 0

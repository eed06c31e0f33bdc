"""The TIFF family: plain, BigTIFF, OME, ImageJ, SVS, QPTIFF; strips or tiles, planar or interleaved.

Finds the wanted planes of the wanted image (:mod:`.tiff_stack`) at every resolution; :mod:`.tiff_pages`
decodes them.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.spelling import option
from ..errors import ImageError, UsageError
from ..geometry.tiling import Region
from .base import DirectReader, Level, Pixels, name_channels, readable, select
from .blocks import BlockCache, Workers, reason, skipping
from .refused import REFUSED
from .tiff_metadata import channel_names, pixel_size
from .tiff_pages import MissingCodecError, Page, as_levels, check_codec, check_page, read_segment
from .tiff_stack import Files, MissingPlaneError, Stack, choose_stack

# Its complaints about damaged files reach the user as our errors; a program that sets up logging
# still gets them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

#: An unnamed axis of up to this many planes is taken for channels, a longer one for pages.
MAX_UNNAMED_CHANNELS = 4
#: More channels than this no picture has.
MOST_CHANNELS = 4096
#: Photometric interpretations whose samples are grey levels, colours or indices.
_PHOTOMETRIC = {0, 1, 2, 3, 6}
_RGB, _PALETTE, _YCBCR = 2, 3, 6
#: Tag of Adobe's raw format, and the interpretations of what a sensor saw.
_DNG, _SENSOR = 50706, (32803, 34892)
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
    exact
        Hand out what is stored, of whatever type it is, for numbers that are no grey levels: labels.

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
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self._workers = Workers(threads)
        self._cache = BlockCache()
        self._skip = skip_bad_tiles
        self._bad: dict[str, None] = {}
        self._notes: list[str] = []
        self._files: Files | None = None
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
        self._files = Files(path)
        tiff = self._files.tiff(path)
        _check_raw(path, tiff)
        stack, notes = choose_stack(self._files, series)
        self._notes += notes
        frame = stack.frame
        _check_colours(path, frame)
        check_codec(path, frame)
        picked = self._choose_planes(path, stack, planes)
        sources, missing = self._sources(path, stack, picked)
        first = sources[min(sources)].page
        stored = self._levels_of(first, np.zeros((1, 1, first.interleaved), frame.dtype))
        dtype = stored.dtype.newbyteorder("=") if self._exact else readable(stored.dtype, path)
        # The channel axis of a palette is made while reading.
        colour = first.palette is not None and not self._exact
        lost = first.palette is None and frame.colormap is not None and not tiff.is_imagej
        if lost and int(frame.photometric) == _PALETTE and not self._exact:
            raise ImageError(f"{path}: its table of colours is damaged; save the picture again")
        pages = list({id(s.page): s.page for s in sources.values()}.values())
        count = 3 if colour else len(sources) + len(missing)
        named = [] if colour else channel_names(tiff, stack, [p.keyframe for p in pages])
        is_rgb = colour or int(frame.photometric) in (_RGB, _YCBCR)
        is_rgb = is_rgb or (stack.ome is not None and [c.samples for c in stack.ome.channels] == [3])
        names = name_channels(named, count, colour=is_rgb)
        self._selection, called = self._select(path, names, channels, missing)
        self._levels = [sources]
        sizes = [Level(first.height, first.width, 1.0)]
        for number in range(1, stack.levels):
            try:
                level, lacking = self._sources(path, stack, picked, number)
            except ImageError:
                break  # the full resolution is sound; a damaged reduction is only slower
            smaller = level[min(level)].page
            ratio = (sizes[0].height / smaller.height + sizes[0].width / smaller.width) / 2
            if lacking.keys() != missing.keys() or ratio <= sizes[-1].downsample:
                break
            self._levels.append(level)
            sizes.append(Level(smaller.height, smaller.width, ratio))
        self._files.close_others()
        scale = pixel_size(tiff, stack)
        super().__init__(
            path,
            dtype=dtype,
            channel_names=called,
            levels=sizes,
            scale=scale,
            notes=self._notes,
        )
        coded = [p.block_bytes * p.grid[1] * p.planes for p in pages if not p.raw]
        self._cache.capacity = max(self._cache.capacity, 3 * max(coded, default=0) * len(pages) // 2)

    def _choose_planes(
        self, path: Path, stack: Stack, wanted: dict[str, int | None]
    ) -> dict[str, int | None]:
        """Return the index along each leading axis; ``None`` for the axis whose planes are channels."""
        picked: dict[str, int | None] = {}
        unused = {name for name, value in wanted.items() if value is not None}
        for axis, length, here in zip(stack.axes, stack.shape, stack.here, strict=True):
            name = {"Z": "z", "T": "t"}.get(axis, "page")
            value = wanted[name]
            unnamed = axis in "QI" and "C" not in stack.axes and "S" not in stack.frame.axes
            if axis == "C":
                picked[axis] = None
                continue
            if unnamed and value is None and length <= MAX_UNNAMED_CHANNELS:
                picked[axis] = None
                self._notes.append(
                    f"its {length} pages are taken for channels (choose one with {option('page')})"
                )
                continue
            if length > 1 or not value:
                unused.discard(name)
            else:
                continue  # named below
            if value is not None and not 0 <= value < length:
                raise UsageError(f"{path}: there is no {option(name, value)}; it has 0 to {length - 1}")
            if value is None and length > 1:
                where = ", the first in this file" if here else ""
                self._notes.append(f"{name} {here} of {length}{where} (choose another with {option(name)})")
            picked[axis] = here if value is None else value
        wrong = sorted(name for name in unused if wanted[name] != 0)
        if wrong:
            axes = f"{stack.axes}{stack.frame.axes}"
            raise UsageError(f"{path}: there is only one plane along {option(wrong[0])} (axes {axes})")
        return picked

    def _sources(
        self, path: Path, stack: Stack, picked: dict[str, int | None], level: int = 0
    ) -> tuple[dict[int, _Source], dict[int, MissingPlaneError]]:
        """Return where each channel comes from, its pages checked, and what is wrong with the others."""
        ranges = [
            range(n) if (at := picked.get(axis, 0)) is None else range(at, at + 1)
            for axis, n in zip(stack.axes, stack.shape, strict=True)
        ]
        count = math.prod(len(each) for each in ranges)
        if count > MOST_CHANNELS:  # a record may claim any number
            raise ImageError(f"{path}: claims {count:,} channels: its record is damaged")
        alpha = _alpha(stack.frame)
        samples = int(stack.frame.shaped[0]) * int(stack.frame.shaped[4])
        kept = [i for i in range(samples) if not alpha or i != alpha]
        sources: dict[int, _Source] = {}
        missing: dict[int, MissingPlaneError] = {}
        for number, place in enumerate(itertools.product(*ranges)):
            channels = range(number * len(kept), (number + 1) * len(kept))
            try:
                page = stack.page(place, level)
            except MissingPlaneError as error:
                missing |= dict.fromkeys(channels, error)
                continue
            check_page(page)
            if page.planes * page.interleaved != samples:
                raise ImageError(f"{page.source.path}: its planes differ in their samples a pixel")
            sources |= {
                c: _Source(page, i // page.interleaved, i % page.interleaved)
                for c, i in zip(channels, kept, strict=True)
            }
        if not sources:
            raise next(iter(missing.values()))
        first = sources[min(sources)].page
        if any((s.page.height, s.page.width) != (first.height, first.width) for s in sources.values()):
            raise ImageError(f"{first.source.path}: its channels have different sizes; save one a file")
        return sources, missing

    def _select(
        self,
        path: Path,
        names: Sequence[str],
        channels: Sequence[int | str] | None,
        missing: dict[int, MissingPlaneError],
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return channels to read and their names: those that were asked for, or all that are there."""
        chosen, called = select(names, channels, path)
        lacking = [i for i in chosen if i in missing]
        if channels is not None and lacking:
            raise missing[lacking[0]]
        for what in dict.fromkeys(missing[i].what for i in lacking):
            left = ", ".join(repr(names[i]) for i in lacking if missing[i].what == what)
            self._notes.append(f"{what}: read without {left}")
        kept = [pair for pair in zip(chosen, called, strict=True) if pair[0] not in missing]
        return tuple(i for i, _ in kept), tuple(name for _, name in kept)

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged strips and tiles that were read as zero."""
        return tuple(self._bad)

    def _read_into(self, region: Region, level: int, out: Pixels) -> None:
        sources = self._levels[level]
        palette = sources[min(sources)].page.palette is not None and not self._exact
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
                    raise ImageError(f"{error}; {skipping()}") from None
                self._bad[str(error)] = None
                block = None
            if block is None:
                target[:, :, [channel for _, channel in channels]] = 0
                return
            block = self._levels_of(page, block)
            if [pair for pair in channels if pair[0] != pair[1]] or block.shape != target.shape:
                for sample, channel in channels:
                    target[:, :, channel] = block[:, :, sample]
            else:
                target[...] = block

        self._workers.each(fill, jobs.values())

    def _levels_of(self, page: Page, block: Pixels) -> Pixels:
        return block if self._exact else as_levels(page, block)

    def close(self) -> None:
        """Close the files and end the threads."""
        self._workers.close()
        self._cache.clear()
        if self._files is not None:
            self._files.close()


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


def _check_raw(path: Path, tiff: Any) -> None:
    """Refuse a camera's raw file under another name: what it shows is a thumbnail."""
    try:
        first = tiff.pages.first
    except IndexError:  # there is none, which is said where an image is chosen
        return
    inner = first.pages if first.subifds and first.subfiletype & 1 else ()
    if _DNG in first.tags or any(int(page.photometric) in _SENSOR for page in inner or ()):
        what, fix = REFUSED[".dng"]
        raise ImageError(f"{path}: {what}; {fix}")


def _alpha(frame: Any) -> int:
    """Return the position of the alpha sample of an RGB or grey page, or 0 where there is none."""
    extra = tuple(int(e) for e in frame.extrasamples or ())
    samples = int(frame.samplesperpixel)
    return samples - 1 if len(extra) == 1 and extra[0] in (1, 2) and samples in (2, 4) else 0

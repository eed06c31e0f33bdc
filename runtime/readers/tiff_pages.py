"""Decode a rectangle of one TIFF page from only those strips or tiles that it touches.

tifffile explains the structure and decodes single segments; which segments, in which thread, and
where their pixels go is decided here. This module knows nothing of series, channels or pyramids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ..errors import ImageError
from ..geometry.tiling import Region
from .blocks import BlockCache, ByteSource, reason
from .headers import MOST_PASSES, check_claim, check_piece, claim

#: TIFF tag values.
_JPEG = (6, 7, 34892, 33007)
_UNCOMPRESSED, _NO_PREDICTOR, _WHITE_IS_ZERO, _PALETTE = 1, 1, 0, 3


class MissingCodecError(ImageError):
    """The file is sound, but nothing that is installed here can decode it.

    Parameters
    ----------
    path
        The file.
    compression
        TIFF's number of the coding.
    """

    def __init__(self, path: Path, compression: Any) -> None:
        name = getattr(compression, "name", None)
        super().__init__(
            f"{path}: no codec for its compression ({f'{name}, ' if name else ''}TIFF number "
            f"{int(compression)}) is installed; pip install -U imagecodecs, or rewrite it: vips tiffsave IN "
            "OUT.tif --tile --compression deflate --bigtiff"
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Where the segments of one page lie and how to decode them.

    Segments are the strips or tiles of the file. A page of P separate planes (planar configuration 2)
    with s interleaved samples each holds P·s samples; segments are numbered by plane, row, column.
    """

    source: ByteSource
    #: The tifffile page that describes layout and coding.
    keyframe: Any
    offsets: Sequence[int]
    counts: Sequence[int]
    jpegtables: bytes | None
    #: Colour of each index, uint8 (n, 3), where the page holds indices.
    palette: npt.NDArray[np.uint8] | None = None

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.keyframe.imagelength)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.keyframe.imagewidth)

    @property
    def planes(self) -> int:
        """Separately stored planes."""
        return int(self.keyframe.shaped[0])

    @property
    def interleaved(self) -> int:
        """Samples stored side by side in each plane."""
        return int(self.keyframe.shaped[4])

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a segment."""
        if self.keyframe.is_tiled:
            return int(self.keyframe.tilelength), int(self.keyframe.tilewidth)
        return min(int(self.keyframe.rowsperstrip), self.height), self.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of segments."""
        return -(-self.height // self.block[0]), -(-self.width // self.block[1])

    @property
    def block_bytes(self) -> int:
        """Bytes of a decoded segment."""
        return self.block[0] * self.block[1] * self.interleaved * int(np.dtype(self.keyframe.dtype).itemsize)

    @property
    def raw(self) -> bool:
        """Whether single rows can be read straight from the file."""
        frame = self.keyframe
        return (
            not frame.is_tiled
            and frame.compression == _UNCOMPRESSED
            and frame.predictor == _NO_PREDICTOR
            and frame.fillorder == 1
            and frame.bitspersample in (8, 16, 32, 64)
        )

    def touched(self, region: Region, plane: int) -> Iterator[int]:
        """Yield the numbers of one plane's segments that a region touches, row by row."""
        (tall, wide), (rows, columns) = self.block, self.grid
        for row in range(region.y // tall, -(-region.y1 // tall)):
            for column in range(region.x // wide, -(-region.x1 // wide)):
                yield (plane * rows + row) * columns + column

    def span(self, index: int) -> Region:
        """Return the rectangle that a segment covers, cut at the page's borders."""
        (tall, wide), (rows, columns) = self.block, self.grid
        y, x = index // columns % rows * tall, index % columns * wide
        return Region(y, x, min(tall, self.height - y), min(wide, self.width - x))

    def part(self, index: int, region: Region) -> Region:
        """Return what a segment covers of a region that it touches."""
        span = self.span(index)
        y, x = max(span.y, region.y), max(span.x, region.x)
        return Region(y, x, min(span.y1, region.y1) - y, min(span.x1, region.x1) - x)

    def describe(self, index: int) -> str:
        """Return how a message names a segment."""
        at = self.span(index)
        return (
            f"{'tile' if self.keyframe.is_tiled else 'strip'} {index} (rows from {at.y}, columns from {at.x})"
        )


def check_codec(path: Path, frame: Any) -> None:
    """Refuse a page that no codec is known for, before each of its tiles would be called damaged.

    Raises
    ------
    MissingCodecError
        The advice is to update the codecs, or to rewrite the file.
    """
    if frame.compression != _UNCOMPRESSED and frame.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise MissingCodecError(path, frame.compression)


def check_page(page: Page) -> None:
    """Refuse a page whose segments cannot be what its header says, before anything is allocated.

    Raises
    ------
    ImageError
        Segments are missing or lie beyond the end of the file, or are too large to decode.
    """
    path, frame = page.source.path, page.keyframe
    if frame.imagedepth > 1 or frame.tiledepth > 1:
        raise ImageError(f"{path}: volumetric TIFF tiles are not supported; save one plane per page")
    total = page.height * page.width * page.planes * page.interleaved * np.dtype(frame.dtype).itemsize
    check_claim(path, f"its header claims {page.height:,}×{page.width:,} pixels", total, page.source.size)
    if page.raw:
        size = page.width * page.interleaved * np.dtype(frame.dtype).itemsize
    else:
        check_piece(
            path,
            f"one {'tile' if frame.is_tiled else 'strip'}",
            (*page.block, page.interleaved),
            frame.dtype,
            "rewrite the file with tiles: vips tiffsave IN OUT.tif --tile --bigtiff",
        )
    rows, columns = page.grid
    wanted = rows * columns * page.planes
    if min(len(page.offsets), len(page.counts)) < wanted:
        raise ImageError(
            f"{path}: {wanted:,} strips or tiles are needed for {page.height:,}×{page.width:,} pixels, its "
            f"index has {min(len(page.offsets), len(page.counts)):,}: the file is damaged"
        )
    offsets, counts = np.asarray(page.offsets[:wanted]), np.asarray(page.counts[:wanted])
    if offsets.dtype.kind not in "iu" or counts.dtype.kind not in "iu":
        raise ImageError(f"{path}: its index of strips or tiles holds no whole numbers: the file is damaged")
    offsets, counts = offsets.astype(np.float64), counts.astype(np.float64)
    beyond = int(np.count_nonzero((counts > 0) & (offsets + counts > page.source.size)))
    if beyond:
        raise ImageError(
            f"{path}: {beyond:,} of {wanted:,} strips or tiles lie beyond its end at {page.source.size:,} "
            "bytes: the file is cut short; copy it again"
        )
    if page.raw:
        tall = page.block[0]
        rows_of = np.minimum(tall, page.height - tall * (np.arange(wanted) // columns % rows))
        short = np.flatnonzero((counts > 0) & (counts < rows_of * size))
        if short.size:
            index = int(short[0])
            raise ImageError(
                f"{path}: {page.describe(index)} needs {int(rows_of[index]) * size:,} bytes and has "
                f"{page.counts[index]:,}: the file is damaged"
            )


def read_segment(page: Page, index: int, part: Region, cache: BlockCache) -> npt.NDArray[Any] | None:
    """Decode a part of one segment.

    Parameters
    ----------
    page, index
        The segment.
    part
        As from :meth:`Page.part`.
    cache
        Keeps the whole segment, decoded.

    Returns
    -------
    ndarray or None
        Its samples, shape (height, width, interleaved), in native byte order; ``None`` for a segment
        that the file leaves out, which reads as zero.

    Raises
    ------
    ImageError
        The segment is damaged.
    """
    span = page.span(index)
    offset, count = page.offsets[index], page.counts[index]
    if not offset or not count:
        return None
    if page.raw:
        return _read_rows(page, offset, span, part)
    key = (id(page), index)
    block = cache.get(key)
    if block is None:
        block = _decode(page, index, page.source.read(offset, count))
        cache.put(key, block)
    return block[part.y - span.y : part.y1 - span.y, part.x - span.x : part.x1 - span.x]


def _read_rows(page: Page, offset: int, span: Region, part: Region) -> npt.NDArray[Any]:
    """Read part of an uncompressed strip."""
    dtype = np.dtype(page.keyframe.dtype).newbyteorder(page.keyframe.parent.byteorder)
    pixel = page.interleaved * dtype.itemsize
    pitch = page.width * pixel
    start = offset + (part.y - span.y) * pitch
    if part.width * 8 < page.width:
        rows = [
            page.source.read(start + i * pitch + part.x * pixel, part.width * pixel)
            for i in range(part.height)
        ]
        flat, left, columns = b"".join(rows), 0, part.width
    else:
        flat, left, columns = page.source.read(start, part.height * pitch), part.x, page.width
    block = np.frombuffer(flat, dtype).reshape(part.height, columns, page.interleaved)
    native: npt.NDArray[Any] = block[:, left : left + part.width].astype(dtype.newbyteorder("="), copy=False)
    return native


def _decode(page: Page, index: int, data: bytes) -> npt.NDArray[Any]:
    """Decode a whole segment; shape (rows, columns, interleaved), cut at the page's borders."""
    frame, path, span = page.keyframe, page.source.path, page.span(index)
    check_claim(path, page.describe(index) + " is far too short", page.block_bytes, len(data))
    coded = claim(data) if frame.compression != _UNCOMPRESSED else None
    if coded is not None and (
        coded.height * coded.width > 4 * page.block[0] * page.block[1]
        or coded.height * coded.width * coded.pixel_bytes > 32 * page.block_bytes
    ):
        raise ImageError(
            f"{path}: {page.describe(index)} claims {coded.height}×{coded.width} pixels: damaged"
        )
    if coded is not None and coded.passes > MOST_PASSES:
        raise ImageError(f"{path}: {page.describe(index)} has {coded.passes:,} scans: damaged")
    arguments: dict[str, Any] = {}
    if frame.compression in _JPEG:
        arguments = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    try:
        decoded = frame.decode(data, index, **arguments)[0]
        block: npt.NDArray[Any] = decoded[0, : span.height, : span.width]
    except ImportError:  # the codec is known, but this build of imagecodecs goes without it
        raise MissingCodecError(path, frame.compression) from None
    except Exception as error:  # codecs raise what they like
        raise ImageError(f"{path}: {page.describe(index)} cannot be decoded: {reason(error)}") from None
    if block.shape != (span.height, span.width, page.interleaved):
        raise ImageError(
            f"{path}: {page.describe(index)} decodes to {block.shape[0]}×{block.shape[1]} pixels, wanted "
            f"{span.height}×{span.width}: damaged"
        )
    return block


def as_levels(page: Page, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn stored samples into grey levels or colours: bilevel, white-is-zero and palette pages."""
    frame = page.keyframe
    if page.palette is not None:
        return np.asarray(page.palette[np.minimum(block[:, :, 0], len(page.palette) - 1)])
    if block.dtype == np.bool_:
        block = block.astype(np.uint8) * np.uint8(255)
        return 255 - block if frame.photometric == _WHITE_IS_ZERO else block
    if frame.photometric == _WHITE_IS_ZERO and block.dtype.kind == "u":
        white = block.dtype.type((1 << int(frame.bitspersample)) - 1)
        return np.asarray(white - block)
    return block


def palette_of(frame: Any) -> npt.NDArray[np.uint8] | None:
    """Return a page's colour table as uint8 (n, 3), or ``None`` where its values are grey levels.

    Also where the table is damaged. ImageJ writes its display colour as a palette: there the indices
    themselves are the measurement.
    """
    if frame.photometric != _PALETTE or frame.parent.is_imagej or frame.colormap is None:
        return None
    table = np.asarray(frame.colormap, np.uint16)  # (3, n), 16 bits a colour
    if table.ndim != 2 or table.shape[0] != 3 or table.shape[1] < 1:
        return None
    return np.ascontiguousarray((table >> 8).astype(np.uint8).T)

"""Files of a sharded Zarr array, written directly.

A shard is one file with some compressed chunks and an index of where each lies. Writing through
``zarr`` costs four times the compression itself; the layout is short enough to be written here, and
``zarr`` reads it back in the tests.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from ..kernels.chunks import crc32c, cut, thin

#: Offset and size in the index of a chunk that is all fill value and not stored.
ABSENT = 2**64 - 1
#: Zstandard level, as the array's metadata says.
LEVEL = 1


def shard(chunks: Sequence[bytes | None]) -> bytes:
    """Return the bytes of a shard: its chunks one after the other, then the index and its checksum.

    Parameters
    ----------
    chunks
        Compressed chunks in C order; ``None`` for those that are all fill value.
    """
    index: list[int] = []
    offset = 0
    for chunk in chunks:
        index += (ABSENT, ABSENT) if chunk is None else (offset, len(chunk))
        offset += 0 if chunk is None else len(chunk)
    packed = struct.pack(f"<{len(index)}Q", *index)
    return b"".join([*filter(None, chunks), packed, struct.pack("<I", crc32c(packed))])


def encode_chunks(
    parts: Sequence[npt.NDArray[np.int32]], chunk: int, thinned: npt.NDArray[np.int32] | None = None
) -> list[bytes | None]:
    """Compress the chunks of one row of them; ``None`` for those that are all zero.

    Parameters
    ----------
    parts
        The rows in one or more parts, each of shape (rows, width) with contiguous rows; up to ``chunk``
        rows in all.
    chunk
        Edge of a chunk in pixels, even.
    thinned
        Gets every second row and column, from the first ones on.
    """
    encoded: list[bytes | None] = []
    block = np.empty((chunk, chunk), np.int32)  # one for all: it stays in cache
    for x in range(0, parts[0].shape[1], chunk):
        top, found = 0, False
        for part in parts:
            found |= cut(part, x, block, top)
            top += len(part)
        block[top:] = 0
        if thinned is not None:
            thin(block, thinned[:, x // 2 : (x + chunk) // 2])
        # any buffer does
        encoded.append(bytes(imagecodecs.zstd_encode(block, level=LEVEL)) if found else None)  # type: ignore[arg-type]
    return encoded


def write_shard(path: Path, chunks: Sequence[bytes | None]) -> int:
    """Write a shard, unless there is nothing in it; return the bytes of the file, 0 where there is none."""
    if all(chunk is None for chunk in chunks):
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(shard(chunks))

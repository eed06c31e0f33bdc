"""Files of a sharded Zarr array, written directly.

A shard is one file with a row of compressed chunks and an index of where each lies. Writing through
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


def write_shard(
    path: Path,
    parts: Sequence[npt.NDArray[np.int32]],
    chunk: int,
    per_shard: int,
    thinned: npt.NDArray[np.int32] | None = None,
) -> int:
    """Write one shard, unless there is nothing but zeros in it.

    Parameters
    ----------
    path
        The file to make.
    parts
        Its rows in one or more parts, each of shape (rows, up to chunk · per_shard) with contiguous rows;
        up to chunk rows in all.
    chunk
        Edge of a chunk in pixels, even.
    per_shard
        Chunks of a shard.
    thinned
        Gets every second row and column, from the first ones on.

    Returns
    -------
    int
        Bytes of the file; 0 where none was written.
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
    if all(data is None for data in encoded):
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(shard(encoded + [None] * (per_shard - len(encoded))))

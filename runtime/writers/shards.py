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

from ..kernels.chunks import cut

#: Offset and size in the index of a chunk that is all fill value and not stored.
ABSENT = 2**64 - 1
#: Zstandard level, as the array's metadata says.
LEVEL = 1


def _crc_table() -> tuple[int, ...]:
    """Return the table of the Castagnoli polynomial, reflected."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


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


def write_shard(path: Path, rows: npt.NDArray[np.int32], chunk: int, per_shard: int) -> int:
    """Write one shard, unless there is nothing but zeros in it.

    Parameters
    ----------
    path
        The file to make.
    rows
        Shape (up to chunk, up to chunk · per_shard), of any strides.
    chunk
        Edge of a chunk in pixels.
    per_shard
        Chunks of a shard.

    Returns
    -------
    int
        Bytes of the file; 0 where none was written.
    """
    parts: list[bytes | None] = []
    block = np.empty((chunk, chunk), np.int32)  # one for all: it stays in cache
    for x in range(0, rows.shape[1], chunk):
        found = cut(rows, x, block)
        # any buffer does
        parts.append(bytes(imagecodecs.zstd_encode(block, level=LEVEL)) if found else None)  # type: ignore[arg-type]
    if all(part is None for part in parts):
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(shard(parts + [None] * (per_shard - len(parts))))

"""Decode the chunks of Zarr arrays into no more memory than their array says that they take.

The libraries decode whatever a chunk holds, and compare it with the array's chunks only then: 60 kB of
zeros, packed, are two gigabytes for a moment, and keep a processor busy for minutes. So each codec that
can unpack more than it takes is asked, told or stopped before. Codecs that only some programs have, and
those that stand for objects (among them Python's pickles, which run what they hold), are refused by name.

Knows codecs and sizes, not images. Formats: https://zarr-specs.readthedocs.io,
https://numcodecs.readthedocs.io, RFC 8878 (zstd), https://github.com/Blosc/c-blosc (README_HEADER).
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import zarr
from numcodecs.abc import Codec as Numcodec  # type: ignore[import-untyped]
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec, Codec
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec

#: Codecs by their names in both versions of Zarr: those that unpack; those that give about what they take.
PACKED = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
PLAIN = (
    "adler32", "astype", "bitround", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32",
    "jenkins_lookup3", "packbits", "quantize", "shuffle",
)  # fmt: skip
#: Filters may hold numbers in larger types than the array's, and checksums take some bytes.
_TIMES, _MORE = 8, 1 << 12
#: Shards within shards, and chunks in one shard.
_DEEPEST, _MOST_INNER = 2, 1 << 22


class ChunkError(ValueError):
    """A chunk, or how it is coded, that is not decoded here."""


def bounded(array: Any) -> Any:
    """Return the same Zarr array; its chunks are decoded within bounds from now on.

    Parameters
    ----------
    array
        ``zarr.Array``, as opened.

    Raises
    ------
    ChunkError
        It is coded in a way that is not read.
    """
    if not isinstance(array, zarr.Array):
        raise ChunkError("it is a group, wanted an array")
    inner = array.async_array
    metadata: Any = inner.metadata
    pipeline = type(inner.codec_pipeline)
    if metadata.zarr_format == 2:
        from zarr.codecs._v2 import V2Codec

        most = _most(array.chunks, metadata.dtype.to_native_dtype().itemsize)
        filters = tuple(_Bounded2(each, most) for each in metadata.filters or ())
        packed = metadata.compressor and _Bounded2(metadata.compressor, most)
        codecs: Iterable[Codec] = [V2Codec(filters=filters or None, compressor=packed)]
    else:
        codecs = _bounded3(metadata.codecs, metadata.chunk_grid.chunk_shape)
    # A frozen dataclass, whose constructor knows nothing of codecs that are not in its metadata.
    object.__setattr__(inner, "codec_pipeline", pipeline.from_codecs(codecs))
    return array


def unpacked(name: str, data: bytes, most: int) -> bytes | None:
    """Unpack a chunk, or see that another codec may: it says itself how much there is.

    Parameters
    ----------
    name
        One of :data:`PACKED`.
    data
        As stored.
    most
        Bytes that it may take.

    Returns
    -------
    bytes or None
        What it holds; ``None`` where its own codec takes no more than `most` for it.

    Raises
    ------
    ChunkError
        It holds more.
    """
    match name:
        case "blosc" | "lz4":
            at = 4 if name == "blosc" else 0
            _check(struct.unpack_from("<I", data, at)[0] if len(data) >= at + 4 else 0, most)
            return None
        case "zstd":
            size = _zstd_size(data)
            if size is not None:
                _check(size, most)
                return None
            try:
                return bytes(imagecodecs.zstd_decode(data, out=most))
            except RuntimeError as error:
                raise ChunkError(f"it cannot be unpacked, or holds over {most:,} bytes: {error}") from None
        case "gzip":
            return _inflate(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), data, most)
        case "zlib":
            return _inflate(zlib.decompressobj, data, most, again=False)
        case "bz2":
            return _inflate(bz2.BZ2Decompressor, data, most)
    raise ChunkError(f"it is packed by {name}, which is not read")


def _check(size: int, most: int) -> None:
    if size > most:
        raise ChunkError(f"it holds {size:,} bytes, and the array says {most:,} at most: damaged")


def _most(shape: Iterable[int], itemsize: int) -> int:
    return math.prod(shape) * itemsize * _TIMES + _MORE


def _zstd_size(data: bytes) -> int | None:
    """Return what the first frame says of its size; ``None`` where it does not."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 18:
        return None
    flags = data[4]
    kind, single = flags >> 6, flags >> 5 & 1
    if not kind and not single:
        return None
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    width = (1, 2, 4, 8)[kind]
    return int.from_bytes(data[at : at + width], "little") + (256 if kind == 1 else 0)


def _inflate(start: Callable[[], Any], data: bytes, most: int, again: bool = True) -> bytes:
    """Unpack one part, or one after the other, and stop where there is too much."""
    parts: list[bytes] = []
    size = 0
    while data:
        unpacker = start()
        parts.append(unpacker.decompress(data, most + 1 - size))
        size += len(parts[-1])
        _check(size, most)
        if not unpacker.eof:
            raise ChunkError("it is cut short")
        data = unpacker.unused_data.lstrip(b"\0") if again else b""  # gzip may be padded
    return b"".join(parts)


class _Bounded2(Numcodec):  # type: ignore[misc]
    """A codec of Zarr 2."""

    def __init__(self, codec: Any, most: int) -> None:
        self._codec, self._most = codec, most
        self._name = _known(str(codec.codec_id))

    def decode(self, buf: Any, out: Any = None) -> Any:
        if self._name not in PACKED:
            return self._codec.decode(buf)
        data = np.ascontiguousarray(buf).tobytes() if isinstance(buf, np.ndarray) else bytes(buf)
        found = (
            _lzma(self._codec, data, self._most)
            if self._name == "lzma"
            else unpacked(self._name, data, self._most)
        )
        return self._codec.decode(buf) if found is None else found

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError


def _lzma(codec: Any, data: bytes, most: int) -> bytes:
    """Unpack LZMA, whose format and filters the array's metadata name."""
    return _inflate(lambda: lzma.LZMADecompressor(codec.format, filters=codec.filters), data, most)


@dataclass(frozen=True)
class _Bounded3(BytesBytesCodec):  # type: ignore[misc]
    """A codec of Zarr 3 from bytes to bytes."""

    codec: BytesBytesCodec
    name: str

    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        if self.name in PACKED:
            most = _most(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize)
            data = chunk_bytes.to_bytes()
            if self.name == "lzma":
                inner = self.codec._codec  # that of numcodecs
                found: bytes | None = await asyncio.to_thread(_lzma, inner, data, most)
            else:
                found = await asyncio.to_thread(unpacked, self.name, data, most)
            if found is not None:
                return chunk_spec.prototype.buffer.from_bytes(found)
        return await self.codec._decode_single(chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))


def _bounded3(codecs: Iterable[Codec], shape: tuple[int, ...], depth: int = 0) -> list[Codec]:
    """Return the codecs of an array, or of the chunks in a shard of some shape."""
    made: list[Codec] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            made.append(_bounded_shards(codec, shape, depth))
        elif isinstance(codec, BytesCodec | Crc32cCodec | TransposeCodec):
            made.append(codec)
        else:
            name = str(codec.to_dict()["name"])
            known = _known(name.removeprefix("numcodecs."))
            if isinstance(codec, BytesBytesCodec):
                made.append(_Bounded3(codec, known))
            elif isinstance(codec, ArrayArrayCodec | ArrayBytesCodec):
                made.append(codec)
    return made


def _bounded_shards(codec: ShardingCodec, shape: tuple[int, ...], depth: int) -> ShardingCodec:
    inner = codec.chunk_shape
    pairs = list(zip(inner, shape, strict=False))
    if len(inner) != len(shape) or any(small < 1 or large % small for small, large in pairs):
        raise ChunkError(f"its shards of {shape} pixels are no whole numbers of chunks of {inner}")
    count = math.prod(large // small for small, large in pairs)
    if count > _MOST_INNER:
        raise ChunkError(f"a shard holds {count:,} chunks; at most {_MOST_INNER:,} are read")
    if depth == _DEEPEST:
        raise ChunkError(f"it has shards within shards, more than {_DEEPEST} deep")
    return ShardingCodec(
        chunk_shape=inner,
        codecs=_bounded3(codec.codecs, inner, depth + 1),
        index_codecs=codec.index_codecs,
        index_location=codec.index_location,
    )


def _known(name: str) -> str:
    if name not in PACKED and name not in PLAIN:
        raise ChunkError(
            f"it is coded by '{name[:80]}', which is not read; write it with {', '.join(PACKED[:-1])} or "
            f"{PACKED[-1]}"
        )
    return name

"""Read and seal the metadata of an ONNX file without the ``onnx`` package.

An ONNX file is one protobuf message; its metadata is a list of key and value strings beside the
graph. This module walks over the top-level fields and skips the graph without reading it, so that
it takes no time and no memory, and the runtime needs no ``onnx``. It knows nothing of graphs.

Source: ``ModelProto`` in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import ModelError
from .spec import METADATA_KEY, ModelSpec

#: Field numbers: ``ModelProto.graph``, ``ModelProto.metadata_props``, and the entry's key and value.
_GRAPH, _METADATA, _KEY, _VALUE = 7, 14, 1, 2
#: Wire types: variable-length integer, 8 bytes, length and bytes, 4 bytes.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: A metadata entry larger than this is not read: it is not a specification.
_LONGEST_ENTRY = 16 << 20
#: Key of the seal.
SEAL_KEY = "cellseg.sha256"


class _WireError(Exception):
    """The bytes are not a message of this kind."""


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Key and value of every entry of ``metadata_props``.

    Raises
    ------
    ModelError
        The file is missing, cannot be read, is damaged, or is no ONNX model.
    """
    return _read(path)[0]


def load_spec(path: Path) -> ModelSpec:
    """Return the specification that rides in an ONNX file, and check its seal.

    Raises
    ------
    ModelError
        The file is no ONNX model, carries no specification or one of another release, or has
        changed since it was sealed.
    """
    metadata, sealed = _read(path)
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{path}: an ONNX model, but not one of ours (no '{METADATA_KEY}' in its metadata); "
            "expected a file written by cellseg-export"
        )
    if SEAL_KEY in metadata and metadata[SEAL_KEY] != _sha256(path, sealed):
        raise ModelError(
            f"{path}: changed or damaged since it was exported (its checksum differs); export it again"
        )
    return ModelSpec.from_json(text, str(path))


def seal(path: Path) -> None:
    """Append the checksum of an ONNX file to its metadata; the last thing an exporter does.

    :func:`load_spec` checks it. It finds damage and edits by accident; it is no signature. Where the
    file is edited with other tools on purpose, remove the entry :data:`SEAL_KEY`.

    Raises
    ------
    ModelError
        The file is no ONNX model, or is sealed already.
    """
    metadata, _ = _read(path)
    if SEAL_KEY in metadata:
        raise ModelError(f"{path}: is sealed already")
    entry = _entry(SEAL_KEY, _sha256(path, path.stat().st_size))
    with path.open("ab") as file:
        file.write(entry)
        file.flush()
        os.fsync(file.fileno())


def respecify(source: Path, target: Path, spec: ModelSpec) -> None:
    """Write an ONNX file anew with another specification, and seal it; the graph is copied as it is.

    Parameters
    ----------
    source
        A model of ours.
    target
        Another file; it is overwritten.
    spec
        What it shall say.

    Raises
    ------
    ModelError
        `source` is no ONNX model of ours, or has changed since it was sealed.
    """
    load_spec(source)
    with source.open("rb") as old, target.open("wb") as new:
        for field in _fields(old, os.fstat(old.fileno()).st_size):
            if field.key not in (METADATA_KEY, SEAL_KEY):
                old.seek(field.start)
                left = field.end - field.start
                while left:
                    left -= new.write(old.read(min(left, 1 << 20)))
        new.write(_entry(METADATA_KEY, spec.to_json()))
    seal(target)


def _read(path: Path) -> tuple[dict[str, str], int]:
    """Return the metadata and how many bytes stand before its last entry."""
    try:
        with path.open("rb") as file:
            return _walk(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except _WireError as error:
        raise ModelError(
            f"{path}: not an ONNX model, or a damaged one ({error}); "
            "expected a file written by cellseg-export"
        ) from None


def _sha256(path: Path, size: int) -> str:
    """Return the checksum of a file's first bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (part := file.read(min(size, 1 << 20))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Field:
    """One top-level field: its number, its bytes in the file, and what it says if it is metadata."""

    number: int
    start: int
    end: int
    key: str | None = None
    value: str = ""


def _walk(file: BinaryIO, size: int) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    has_graph, last = False, 0
    for field in _fields(file, size):
        if field.key is not None:
            found[field.key] = field.value
            last = field.start
        has_graph = has_graph or field.number == _GRAPH
    if not has_graph:
        raise _WireError("it holds no graph")
    return found, last


def _fields(file: BinaryIO, size: int) -> Iterator[_Field]:
    """Walk over the fields from the file's beginning; it may be moved about between them."""
    start = 0
    while start < size:
        file.seek(start)
        number, length = _field(file)
        begin = file.tell()
        end = begin + length
        if end > size:
            raise _WireError(f"field {number} ends beyond the file's {size} bytes: is it truncated?")
        if number == _METADATA and length <= _LONGEST_ENTRY:
            entry = _strings(file.read(length))
            yield _Field(number, start, end, entry.get(_KEY, ""), entry.get(_VALUE, ""))
        else:
            yield _Field(number, start, end)
        start = end


def _entry(key: str, value: str) -> bytes:
    """Return a metadata entry, ready to be appended to a model."""
    pair = b"".join(_tagged(field, text.encode()) for field, text in ((_KEY, key), (_VALUE, value)))
    return _tagged(_METADATA, pair)


def _tagged(field: int, content: bytes) -> bytes:
    """Return a field of bytes: its tag, its length in groups of seven bits, low ones first, and itself."""
    length, rest = b"", len(content)
    while rest > 0x7F:
        length += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return bytes((field << 3 | _BYTES,)) + length + bytes((rest,)) + content


def _field(file: BinaryIO) -> tuple[int, int]:
    """Read a field's tag; return its number and how many bytes of value follow."""
    tag = _varint(file)
    field, wire = tag >> 3, tag & 7
    if not 1 <= field <= 1000:  # unknown newer fields are fine, noise is not
        raise _WireError(f"found field number {field}")
    if wire == _VARINT:
        _varint(file)
        return field, 0
    if wire == _BYTES:
        return field, _varint(file)
    if wire in (_FIXED32, _FIXED64):
        return field, 4 if wire == _FIXED32 else 8
    raise _WireError(f"found wire type {wire}")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _WireError("it ends inside a number: is it truncated?")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _WireError("found a number of more than 64 bits")


def _strings(message: bytes) -> dict[int, str]:
    """Return the string fields of a message of strings."""
    file, found = io.BytesIO(message), dict[int, str]()
    while file.tell() < len(message):
        field, length = _field(file)
        value = file.read(length)
        if len(value) < length:
            raise _WireError("a metadata entry is cut short")
        try:
            found[field] = value.decode()
        except UnicodeDecodeError:
            raise _WireError("a metadata entry is no text") from None
    return found

"""Read and seal the metadata of an ONNX file without the ``onnx`` package.

An ONNX file is one protobuf message; its metadata is a list of key and value strings next to the
graph. This module walks over the top-level fields and skips the graph without reading it, so that
it takes no time and no memory, and the runtime needs no ``onnx``. What a graph may hold is said in
:mod:`.graph`.

Source: ``ModelProto`` in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ModelError
from . import graph
from .spec import METADATA_KEY, ModelSpec
from .wire import Field, WireError, content, fields, strings, tagged

#: Field numbers: ``ModelProto.metadata_props``, and the entry's key and value.
_METADATA, _KEY, _VALUE = 14, 1, 2
#: A metadata entry larger than this is not read: it is not a specification.
_LONGEST_ENTRY = 16 << 20
#: Key of the seal.
SEAL_KEY = "cellseg.sha256"


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
    """Return the specification that rides in an ONNX file, and check its seal and its graph.

    Raises
    ------
    ModelError
        The file is no ONNX model, carries no specification or one of another release, has changed
        since it was sealed, or holds what no network does.
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
    with _opened(path) as (file, size):
        problem = graph.complaint(file, size)
    if problem is not None:
        raise ModelError(
            f"{path}: its graph {problem}, which no exported network does; "
            "expected a file written by cellseg-export"
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
    """Write an ONNX file again with another specification, and seal it; the graph is copied as it is.

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
        for field in fields(old, 0, os.fstat(old.fileno()).st_size):
            if _metadata(old, field)[0] not in (METADATA_KEY, SEAL_KEY):
                old.seek(field.start)
                left = field.end - field.start
                while left:
                    left -= new.write(old.read(min(left, 1 << 20)))
        new.write(_entry(METADATA_KEY, spec.to_json()))
    seal(target)


def _read(path: Path) -> tuple[dict[str, str], int]:
    """Return the metadata and how many bytes stand before its last entry."""
    with _opened(path) as (file, size):
        return _walk(file, size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a model; whatever is wrong with it meanwhile is a ModelError that names it."""
    try:
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except WireError as error:
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


def _walk(file: BinaryIO, size: int) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    has_graph, last = False, 0
    for field in fields(file, 0, size):
        key, value = _metadata(file, field)
        if key is not None:
            found[key] = value
            last = field.start
        has_graph = has_graph or field.number == graph.GRAPH
    if not has_graph:
        raise WireError("it holds no graph")
    return found, last


def _metadata(file: BinaryIO, field: Field) -> tuple[str | None, str]:
    """Return the key and value of a field that is an entry of the metadata; ``None`` for any other."""
    if field.number != _METADATA or field.end - field.begin > _LONGEST_ENTRY:
        return None, ""
    entry = strings(content(file, field))
    return entry.get(_KEY, ""), entry.get(_VALUE, "")


def _entry(key: str, value: str) -> bytes:
    """Return a metadata entry, ready to be appended to a model."""
    pair = b"".join(tagged(field, text.encode()) for field, text in ((_KEY, key), (_VALUE, value)))
    return tagged(_METADATA, pair)

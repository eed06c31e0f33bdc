"""Files of arrays that one task leaves for another: whole or not there, each block with its checksum.

::

    mark │ block │ block │ … │ index as JSON │ its length, its CRC-32, mark
"""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..common.closing import Closing
from ..common.disk import sync
from ..common.files import writing
from ..errors import OutputError

MARK = b"CSP1"
_TAIL = struct.Struct("<QI4s")
#: Of LZ4: fast, for these files live for minutes.
_ACCELERATION = 5


class BlockWriter(Closing):
    """Writes blocks of arrays one after the other; the file has its name once :meth:`commit` was called.

    Parameters
    ----------
    path
        The file to make, in a folder that is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two workers may be at the same task, where one was taken for dead.
        self._partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        self._index: list[dict[str, Any]] = []
        self._at = len(MARK)
        with writing(path):
            self._file = self._partial.open("xb")
            self._file.write(MARK)

    def add(self, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a block.

        Parameters
        ----------
        about
            Plain values that the index holds.
        arrays
            By name.
        """
        entries = {}
        with writing(self._path):
            for name, array in arrays.items():
                values = np.ascontiguousarray(array)
                packed = imagecodecs.lz4_encode(values.tobytes(), level=_ACCELERATION) if values.size else b""
                self._file.write(packed)
                kind = values.dtype.descr if values.dtype.names else values.dtype.str
                entries[name] = [kind, values.shape, self._at, len(packed), zlib.crc32(packed)]
                self._at += len(packed)
        self._index.append({"about": dict(about), "arrays": entries})

    def commit(self, about: Mapping[str, Any] | None = None) -> None:
        """Write the index, with plain values about the whole file, and give the file its name."""
        index = json.dumps({"about": dict(about or {}), "blocks": self._index}).encode()
        with writing(self._path):
            self._file.write(index + _TAIL.pack(len(index), zlib.crc32(index), MARK))
            self._file.flush()
            sync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)

    def close(self) -> None:
        """Remove what there is, unless committed."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


class BlockReader(Closing):
    """Reads a file of blocks.

    Parameters
    ----------
    path
        As written by :class:`BlockWriter`.

    Raises
    ------
    OutputError
        It is not there, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise OutputError(f"{path}: cannot be read ({error.strerror}); run it again") from None
        try:
            index = self._read_index()
        except BaseException:
            self._file.close()
            raise
        #: Plain values about the file.
        self.about: dict[str, Any] = index["about"]
        self._blocks: list[dict[str, Any]] = index["blocks"]

    def _read_index(self) -> dict[str, Any]:
        try:
            end = self._file.seek(0, 2) - _TAIL.size
            self._file.seek(max(end, 0))
            length, checksum, mark = _TAIL.unpack(self._file.read(_TAIL.size))
            if mark != MARK or length > end:
                raise ValueError
            self._file.seek(end - length)
            text = self._file.read(length)
            if zlib.crc32(text) != checksum:
                raise ValueError
            found: dict[str, Any] = json.loads(text)
        except (OSError, struct.error, ValueError):
            raise OutputError(f"{self._path}: is not whole; run it again") from None
        return found

    def __len__(self) -> int:
        return len(self._blocks)

    def told(self, block: int) -> dict[str, Any]:
        """Return the plain values about a block."""
        told: dict[str, Any] = self._blocks[block]["about"]
        return told

    def names(self, block: int) -> tuple[str, ...]:
        """Return the names of a block's arrays."""
        return tuple(self._blocks[block]["arrays"])

    def load(self, block: int, *names: str) -> dict[str, NDArray[Any]]:
        """Return arrays of a block; all by default.

        Raises
        ------
        OutputError
            They are damaged.
        """
        entries = self._blocks[block]["arrays"]
        return {name: self._load(*entries[name]) for name in names or entries}

    def _load(self, kind: Any, shape: list[int], at: int, size: int, checksum: int) -> NDArray[Any]:
        dtype = np.dtype([tuple(field) for field in kind] if isinstance(kind, list) else kind)
        array = np.empty(shape, dtype)
        with writing(self._path):
            self._file.seek(at)
            packed = self._file.read(size)
        if zlib.crc32(packed) != checksum or len(packed) != size:
            raise OutputError(f"{self._path}: was damaged meanwhile; run it again")
        if array.size:
            imagecodecs.lz4_decode(packed, out=array.view(np.uint8).reshape(-1).data)
        return array

    def verify(self) -> None:
        """Read every block.

        Raises
        ------
        OutputError
            One is damaged.
        """
        for entry in self._blocks:
            for array in entry["arrays"].values():
                self._load(*array)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

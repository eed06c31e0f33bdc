"""Finished bands on disk, so that a run that was stopped can go on where it was.

What costs time is the network, so its planes are what is kept: band by band, compressed, each under
its final name only when complete. All that follows from them (cells, numbers, tables) is computed
again by the same code from the same bytes, and is therefore the same.
"""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..common.bounded import parse_json, read_bytes
from ..common.disk import sync, sync_folder
from ..common.files import writing
from ..common.spelling import option
from ..errors import OutputError, UsageError

#: Before the compressed planes of a band: mark, CRC-32 of what follows, heads, rows, columns.
HEADER = struct.Struct("<4sIIII")
MARK = b"CSB1"
#: The file that says which run the bands belong to.
IDENTITY = "run.json"
#: A band is kept only if computing it took this many times as long as keeping one: a fast engine computes
#: it again sooner than it would have been written.
WORTH = 10.0
#: Seconds from the start in which nothing is kept: computing them again is no loss, and most images take
#: no longer.
AFTER = 60.0
#: Of LZ4, from 1 for small to 65537 for fast. On real planes it makes half of them at 560 MB/s, where the
#: fastest of Zstandard makes 0.37 at 320.
ACCELERATION = 5
#: Names of the bands.
BAND = re.compile(r"band-(\d{1,9})\.planes")


class Journal:
    """The finished bands of one slide.

    Parameters
    ----------
    folder
        Where they are; made if need be.
    identity
        All that the planes depend on, as plain values. Bands of a run with another identity are never
        mixed in.

    Raises
    ------
    UsageError
        The folder holds bands of a run with another identity.
    OutputError
        It cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._keeping = 0.0
        self._started = self._since = time.perf_counter()
        text = json.dumps(identity, indent=1, sort_keys=True)
        mark = folder / IDENTITY
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            before = read_run(mark)
            if before is not None:
                compare_runs(before, json.loads(text), folder)
            else:
                _forget(folder)
                write_durably(mark, text.encode())
                # The way to the bands: this folder's name in the one above, and that one's.
                for parent in (folder.parent, folder.parent.parent):
                    sync_folder(parent)
            #: Numbers of the bands that were there, and whole, at the start.
            self.bands = frozenset(_whole_bands(folder))

    def keep(self, band: int, planes: NDArray[np.uint8]) -> None:
        """Keep the planes of a finished band, uint8 (K, rows, W), unless that is not worth its time.

        Raises
        ------
        OutputError
            They cannot be written.
        """
        now = time.perf_counter()
        if now - self._started >= AFTER and now - self._since >= WORTH * self._keeping:
            data = imagecodecs.lz4_encode(planes.tobytes(), level=ACCELERATION)
            header = HEADER.pack(MARK, zlib.crc32(data), *planes.shape)
            write_durably(self._path(band), header + data)
            self._keeping = time.perf_counter() - now
        self._since = time.perf_counter()

    def load(self, band: int, planes: NDArray[np.uint8]) -> None:
        """Fill ``planes``, uint8 (K, rows, W), with those of a band that was kept.

        Raises
        ------
        OutputError
            The file is damaged.
        """
        path = self._path(band)
        with writing(path):
            data = path.read_bytes()
        body = data[HEADER.size :]
        if data[: HEADER.size] != HEADER.pack(MARK, zlib.crc32(body), *planes.shape):
            raise OutputError(f"{path}: was changed meanwhile; go on with {option('resume', True)}")
        imagecodecs.lz4_decode(body, out=planes.reshape(-1).data)
        self._since = time.perf_counter()

    def _path(self, band: int) -> Path:
        return self._folder / f"band-{band:06d}.planes"


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whenever this process or the power ends."""
    partial = path.with_suffix(".part")
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def read_run(mark: Path) -> dict[str, Any] | None:
    """Return which run the bands belong to; ``None`` where that is not known."""
    try:
        found = parse_json(read_bytes(mark))
    except (OSError, EOFError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _forget(folder: Path) -> None:
    """Delete the bands of a run of which it is not known what it was."""
    for path in folder.iterdir():
        if BAND.fullmatch(path.name) and not path.is_dir():
            path.unlink()


def _whole_bands(folder: Path) -> Iterator[int]:
    """Yield the numbers of the bands that are whole; delete the others, as a failure of power leaves them."""
    for path in sorted(folder.iterdir()):
        number = BAND.fullmatch(path.name)
        if number is None or not path.is_file():
            continue
        data = path.read_bytes()
        if data[: len(MARK) + 4] == MARK + struct.pack("<I", zlib.crc32(data[HEADER.size :])):
            yield int(number[1])
        else:
            path.unlink()


def compare_runs(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise :class:`UsageError`, by what differs, where two identities of runs are not the same."""
    if before == now:
        return
    name = next(name for name in sorted({*before, *now}) if before.get(name) != now.get(name))
    raise UsageError(
        f"{folder.parent}: was begun with {name} {_short(before.get(name))}, now it is "
        f"{_short(now.get(name))}; go on with the same, or start over without {option('resume')}"
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "…"

"""Compiled models, kept from one run to the next in the user's cache folder.

An engine takes a third of a second to compile a network for one size of tile, and each picture needs two.
What it made is kept here, a file for each: ``~/.cache/cellseg/`` on Linux, the like of it elsewhere, or
the folder that ``CELLSEG_CACHE`` names; ``CELLSEG_CACHE=off`` keeps nothing. The folder is the user's alone
and holds :data:`MOST` bytes at most. All of it may be deleted at any time.

A file says for what it was made, and has a checksum: one that is damaged, or that is for anything else, is as
good as none. Nor does a run fail because there is no home, no space or no permission. It knows nothing of
engines: what it keeps are bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: Environment variable that names another folder, or says ``off``.
FOLDER = "CELLSEG_CACHE"
#: Ending of the files.
SUFFIX = ".compiled"
#: Bytes that all files may take together; the ones that were not used for longest go.
MOST = 256 << 20
#: Version of the file's first line.
FORMAT = 1
#: What its first line may take.
_LONGEST_LINE = 16_384

#: All that what an engine makes depends on, as plain values.
Identity = Mapping[str, object]


def folder() -> Path | None:
    """Return where compiled models are kept; ``None`` where they are not."""
    given = os.environ.get(FOLDER)
    if given:
        return None if given == "off" else Path(given)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local, "cellseg", "cache") if local else None
    with contextlib.suppress(RuntimeError):  # there is no home
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "cellseg"
        # What is not absolute is to be ignored: the XDG base directory specification.
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "cellseg"
    return None


def load(identity: Identity) -> bytes | None:
    """Return what was kept for this, or ``None``."""
    with contextlib.suppress(OSError):
        where = folder()
        if where is None or not _private(where):
            return None
        path = where / _name(identity)
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            data = file.read()
        if first != _first_line(identity, data):
            return None
        os.utime(path)  # it was used
        return data
    return None


def save(identity: Identity, data: bytes) -> bool:
    """Keep this, whole or not at all; return whether it is kept."""
    with contextlib.suppress(OSError):
        where = folder()
        if where is None:
            return False
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _private(where):
            return False
        handle, name = tempfile.mkstemp(dir=where, suffix=SUFFIX)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines((_first_line(identity, data), data))
            # Not flushed to the disk: the checksum tells what a failure of power leaves of it.
            partial.replace(where / _name(identity))
        finally:
            partial.unlink(missing_ok=True)
        _bound(where)
        return True
    return False


def _private(where: Path) -> bool:
    """Return whether only this user can write in a folder: an engine trusts what comes from there."""
    if os.name != "posix":
        return True  # the user's own profile
    found = where.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _text(identity: Identity) -> str:
    return json.dumps({"format": FORMAT, **identity}, sort_keys=True)


def _name(identity: Identity) -> str:
    return hashlib.sha256(_text(identity).encode()).hexdigest()[:32] + SUFFIX


def _first_line(identity: Identity, data: bytes) -> bytes:
    return f"{_text(identity)} {hashlib.sha256(data).hexdigest()}\n".encode()


def _bound(where: Path) -> None:
    """Delete the files that were not used for longest, beyond :data:`MOST` bytes."""
    found = []
    for path in where.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    room = MOST
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0:
            with contextlib.suppress(OSError):
                path.unlink()

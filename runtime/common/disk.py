"""See files onto the disk, know them again, and let two names change places.

What was written is safe from a failure of power only once it is flushed, files and folders both: a
folder that was renamed before may be there with files of no bytes in it. This module knows nothing of
what is in the files.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .pulse import beat

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Whether files and folders can be locked here at all.
HAS_LOCKS = fcntl is not None
#: Files that are flushed or read at once: flushing waits for the disk, which joins what waits together.
THREADS = 8
#: ``renameat2`` of Linux (``linux/fs.h``) and ``renamex_np`` of macOS (``sys/stdio.h``): swap two names.
_RENAME_EXCHANGE, _RENAME_SWAP, _AT_FDCWD = 2, 2, -100
#: What a file system answers that cannot do something: that is no failure of the disk.
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}


class Content(NamedTuple):
    """What a file holds."""

    #: Size in bytes.
    size: int
    #: SHA-256 of its bytes, in hexadecimal digits.
    sha256: str


def sync(handle: int) -> None:
    """Flush an open file to the disk.

    Raises
    ------
    OSError
        The disk failed; what was written may be lost.
    """
    if sys.platform == "darwin":  # there, fsync leaves the data in the disk's own cache
        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        else:
            return
    os.fsync(handle)


def lock(handle: int) -> bool:
    """Lock an open file or folder for as long as its handle is open; tell whether there are locks there.

    Raises
    ------
    BlockingIOError
        Another process has it, or another handle of this one.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network folders have none
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Flush a folder: which names it holds, and what they stand for; not what is in the files.

    Raises
    ------
    OSError
        The disk failed.
    """
    if os.name != "posix":
        return  # Windows opens no folders, and its file systems keep a journal of names
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:  # some network file systems flush no folders
            raise
    finally:
        os.close(handle)


def contents(paths: Sequence[Path], *, flush: bool = False) -> list[Content]:
    """Return what files hold, side by side.

    Parameters
    ----------
    paths
        Files.
    flush
        Flush each to the disk too.

    Raises
    ------
    OSError
        One cannot be read, or not be flushed.
    """

    def look(path: Path) -> Content:
        with path.open("rb") as file:
            made = hashlib.file_digest(file, "sha256").hexdigest()
            if flush:
                sync(file.fileno())
            beat()
            return Content(os.fstat(file.fileno()).st_size, made)

    return _side_by_side(look, paths)


def sync_all(paths: Iterable[Path]) -> None:
    """Flush files and folders, side by side; errors as :func:`sync_folder`."""
    _side_by_side(_sync, list(paths))


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb") as file:
        sync(file.fileno())


def _side_by_side(work: Callable[[Path], Any], paths: Sequence[Path]) -> list[Any]:
    if len(paths) < 2:
        return [work(path) for path in paths]
    with ThreadPoolExecutor(min(THREADS, len(paths)), "cellseg-disk") as pool:
        return list(pool.map(work, paths))


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step: whenever the machine stops, both are there.

    Returns
    -------
    bool
        Whether it was done; ``False`` where the system or the file system has no such call.

    Raises
    ------
    OSError
        It cannot be done.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):  # Windows
        return False
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        done = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        done = library.renamex_np(names[0], names[1], _RENAME_SWAP)
    else:
        return False
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))

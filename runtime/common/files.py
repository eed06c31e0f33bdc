"""Write a file whole or not at all; knows nothing of what is in it."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError, UsageError
from .disk import HAS_LOCKS, lock, sync, sync_folder
from .pulse import beat
from .spelling import option

#: In the names of temporary files, between their file's and what makes them unique.
_OURS = ".cellseg-"


@contextlib.contextmanager
def replacing(path: Path, by: str = "output") -> Iterator[Path]:
    """Give a temporary file in the folder of `path` that takes its place when the block ends well.

    A reader sees the old file or the new one. On any exception, Ctrl-C included, the temporary file
    goes and the old file stays as it was. The place is tried at once, before work is spent on it. What a
    process that was killed has left of the same kind goes, too.

    Parameters
    ----------
    path
        The file.
    by
        The option that chooses another place, for messages.

    Raises
    ------
    UsageError
        `path` is a folder.
    OutputError
        Its folder does not exist or cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, partial = _claim(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written there ({error.strerror}); choose another place with {option(by)}"
        ) from None
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        try:
            with partial.open("rb") as file:
                sync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced ({error.strerror})") from None
    finally:
        if handle >= 0:
            os.close(handle)
        partial.unlink(missing_ok=True)


def _claim(path: Path) -> tuple[int, Path]:
    """Make a temporary file for `path`, locked as long as its handle is open; -1 where there are no locks."""
    while True:
        # The suffix stays: engines recognise an ONNX file by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}{_OURS}", suffix=path.suffix)
        partial = Path(name)
        if not HAS_LOCKS:  # and a file that is open cannot be renamed
            os.close(handle)
            return -1, partial
        with contextlib.suppress(BlockingIOError):  # another process is about to sweep it away
            lock(handle)
            if partial.exists():  # none has, before it was locked
                return handle, partial
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove temporary files for `path` whose process is no more."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}{_OURS}*{glob.escape(path.suffix)}"):
        with contextlib.suppress(OSError):  # it is being written, has gone, or is not ours
            handle = os.open(left, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if lock(handle):
                    left.unlink()
            finally:
                os.close(handle)


def refuse_existing(path: Path, by: str = "output", *, overwrite: bool) -> None:
    """Raise UsageError where a file stands that may not be replaced; `by` as in :func:`replacing`."""
    if path.is_file() and not overwrite:
        raise UsageError(
            f"{path}: exists already; replace it with {option('overwrite', True)} or choose another place "
            f"with {option(by)}"
        )


def write(path: Path, data: bytes, by: str = "output") -> None:
    """Write `data` and see it onto the disk; `by` as in :func:`replacing`.

    Raises
    ------
    OutputError
        The disk is full or the place is read-only.
    """
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"{path.parent}: {len(data) / 1e6:.1f} MB cannot be written ({error.strerror}); "
            f"free space or choose another place with {option(by)}"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors while writing ``path`` into one clear line.

    Raises
    ------
    OutputError
        In place of any ``OSError``.
    """
    try:
        yield
        beat()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_advice(error)}") from error


def _advice(error: OSError) -> str:
    text = str(error).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "no space left" in text:
        return f"the disk is full; free some space or choose another folder with {option('output')}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) or "read-only" in text:
        return f"no permission, or a read-only disk; choose another folder with {option('output')}"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"a file is in the way where a folder is needed; choose another folder with {option('output')}"
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long; rename the image"
    return (error.strerror or str(error) or type(error).__name__).lower()

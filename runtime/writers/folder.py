"""The folder of one image's results: it appears under its name complete, or not at all.

::

    .slide.partial/   is filled, with a mark that says it is ours; a stopped run leaves it, or its journal
          │           1. its files are flushed to the disk
          │           2. the record that lists them, and all folders, are flushed
          │           3. the mark goes: from now on it is finished, whatever its name
          ▼           4. it takes its name, or changes places with earlier results, in one step
    slide/            5. it and the folder above are flushed
                      6. of the earlier results goes what their record lists; the rest is kept

A run that finds one of these states left by another, which was killed or lost its power, goes on from
it: :func:`recover`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from ..common.addresses import Address
from ..common.disk import HAS_LOCKS, exchange, lock, sync_all, sync_folder
from ..common.files import writing
from ..common.spelling import option
from ..errors import ExistsError, InUseError, OutputError
from .contents import RECORD, File, listed, remove_listed

#: The part of an unfinished folder that another run can go on from.
JOURNAL = "journal"
#: The file that says that an unfinished folder is ours.
MARK = ".cellseg-unfinished"
#: All that a run writes. In an unfinished folder nothing else is deleted.
NAMES = frozenset(
    {
        "labels.ome.zarr", "labels.ome.tif", "labels.png", "cells.ome.zarr", "cells.ome.tif", "cells.png",
        "planes.ome.zarr", "cells.parquet", "cells.csv",
        "cells.geojson.gz", "overview.png", "density.png", "report.html", RECORD, f".{RECORD}.partial",
        JOURNAL,
    }
)  # fmt: skip


class OutputFolder:
    """A folder that is filled next to its final place and renamed when complete.

    Parameters
    ----------
    final
        The folder to be made.
    overwrite
        Replace an existing folder of results: of it goes what its record lists. What else is in it
        is kept, in the new one. A folder whose record does not list its files is refused.
    resume
        Keep the journal that a stopped run left, and leave one after an error.

    Raises
    ------
    OutputError
        The folder exists, cannot be made, or another run is writing it.
    """

    def __init__(self, final: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.final = final
        self.overwrite = overwrite
        self.resume = resume
        #: Where to write; becomes :attr:`final`.
        self.path = unfinished(final)
        self._lock = -1
        with writing(final):
            recover(final)
            self._check()
            self._made = _make(final.parent)
            self._lock = _claim(self.path, final)
            try:
                _clear(self.path, keep=JOURNAL if resume else None)
                (self.path / MARK).touch()
            except BaseException:
                self._release()
                raise

    def _check(self) -> None:
        if not os.path.lexists(self.final):
            return
        if self.final.is_symlink() or not self.final.is_dir():
            raise OutputError(
                f"{self.final}: exists and is not a folder; choose another with {option('output')}"
            )
        if not any(self.final.iterdir()):
            return
        if not (self.final / RECORD).is_file():
            raise OutputError(
                f"{self.final}: exists and holds something else than results (no {RECORD}); choose another "
                f"with {option('output')}"
            )
        if not self.overwrite:
            raise taken(self.final)
        listed(self.final)

    def commit(self) -> None:
        """Give the folder its final name; its record has been written.

        Raises
        ------
        OutputError
            Something has come in the way, or a file that the record lists is missing.
        """
        self._check()
        with writing(self.final):
            files = listed(self.path)
            _remove(self.path / JOURNAL)
            for file in files:  # the last look: what is gone now would be missed only when it is wanted
                if not (self.path / file.path).is_file():
                    raise OutputError(f"{self.path}: {file.path} was removed meanwhile; run it again")
            folders = {self.path, *(parent for file in files for parent in _folders(self.path, file))}
            sync_all([self.path / RECORD, *sorted(folders)])
            (self.path / MARK).unlink(missing_ok=True)
            old = _take_place(self.path, self.final)
            sync_all([self.final, self.final.parent, *self._made])
            if old is not None:
                _retire(old, self.final)
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a commit there is nothing of ours at the temporary path any more.
        if self._lock >= 0 or not HAS_LOCKS:
            with contextlib.suppress(OSError):
                _discard(self.path, keep=JOURNAL if self.resume else None)
        self._release()


def taken(final: Path | Address) -> ExistsError:
    """Return the error for results that are there and were not to be replaced."""
    return ExistsError(
        f"{final}: exists; replace it with {option('overwrite', True)} or choose another with "
        f"{option('output')}"
    )


def unfinished(final: Path) -> Path:
    """Return where the results of a folder are while they are being written."""
    return final.with_name(f".{final.name}.partial")


def replaced(final: Path) -> Path:
    """Return where earlier results wait to be deleted, where two names cannot change places."""
    return final.with_name(f".{final.name}.replaced")


def recover(final: Path, *, discard: bool = False) -> None:
    """Bring to an end what a killed run had begun: no result is lost, and none of ours left behind.

    Parameters
    ----------
    final
        A folder of results, there or not.
    discard
        Delete what an unfinished run left, its journal too: the results are there already.

    Raises
    ------
    OutputError
        The disk fails.
    """
    partial, old = unfinished(final), replaced(final)
    with writing(final), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (final / MARK).unlink()  # its going was not flushed when the power failed
    if not any(os.path.lexists(path) for path in (partial, old)):
        return
    with writing(final):
        try:
            lock = _lock(partial) if partial.is_dir() and not partial.is_symlink() else -1
        except BlockingIOError:
            return  # a run that is alive; who wants to write there hears of it
        try:
            if not os.path.lexists(final):
                # Finished, but not yet under its name; else what was there before comes back.
                source = next((path for path in (partial, old) if _finished(path)), None)
                if source is not None:
                    source.rename(final)
                    sync_folder(final.parent)
            for path in (old, partial):
                if os.path.lexists(final) and _was_finished(path):
                    _retire(path, final)
            if discard and _ours(partial):
                _discard(partial)
        finally:
            if lock >= 0:
                os.close(lock)


def _ours(path: Path) -> bool:
    """Whether this is an unfinished folder that a run of ours made."""
    return path.is_dir() and not path.is_symlink() and (path / MARK).is_file()


def _was_finished(path: Path) -> bool:
    """Whether this folder holds results, or what is left of them once their record has gone: nothing."""
    if not path.is_dir() or path.is_symlink() or os.path.lexists(path / MARK):
        return False
    if not (path / RECORD).is_file():
        return not any(names for _, _, names in os.walk(path))
    try:
        return bool(listed(path))
    except OutputError:
        return False


def _finished(path: Path) -> bool:
    """Whether this folder holds whole results, by its record."""
    return (
        _was_finished(path)
        and (path / RECORD).is_file()
        and all((path / file.path).is_file() for file in listed(path))
    )


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the folders that got a new name in them."""
    made = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        made.append(parent.parent)
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _claim(path: Path, final: Path) -> int:
    """Make the unfinished folder, or take one that is ours, and lock it; the lock goes with this process."""
    while True:
        if path.is_symlink():
            raise OutputError(f"{path}: is a link; remove it")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            (path / MARK).touch()
            sync_folder(path)  # before anything else is in it: what is left of it must be known as ours
        try:
            held = _lock(path)
        except FileNotFoundError:
            continue  # another run has just finished it
        except BlockingIOError:
            raise InUseError(
                f"{final}: another run is writing it; wait for that or choose another with {option('output')}"
            ) from None
        if held < 0 or (path.exists() and os.path.samestat(os.fstat(held), path.stat())):
            break
        os.close(held)
    if not _ours(path) and any(path.iterdir()):
        if held >= 0:
            os.close(held)
        raise OutputError(
            f"{path}: stands where results are gathered and was not made by cellseg; move it away, or choose "
            f"another folder with {option('output')}"
        )
    return held


def _lock(path: Path) -> int:
    """Lock a folder against other runs; -1 where there are no locks.

    Raises
    ------
    BlockingIOError
        Another run has it.
    """
    if not HAS_LOCKS:
        return -1
    handle = os.open(path, os.O_RDONLY)
    try:
        lock(handle)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _clear(path: Path, keep: str | None = None) -> None:
    """Delete what a stopped run of ours left, apart from what this one can go on from."""
    for name in NAMES - {keep}:
        _remove(path / name)


def _discard(path: Path, keep: str | None = None) -> None:
    """Delete an unfinished folder; what is not ours stays, and what can be gone on from."""
    if not _ours(path):
        return
    _clear(path, keep)
    if {item.name for item in path.iterdir()} == {MARK}:
        (path / MARK).unlink()
        path.rmdir()


def _folders(root: Path, file: File) -> list[Path]:
    """Return the folders below ``root`` that a file lies in."""
    return [root / parent for parent in Path(file.path).parents][:-1]


def _take_place(path: Path, final: Path) -> Path | None:
    """Give a finished folder its name; return where the one is that had it before."""
    if not os.path.lexists(final):
        path.rename(final)
        return None
    if exchange(path, final):
        return path
    old = replaced(final)
    final.rename(old)
    path.rename(final)
    return old


def _retire(old: Path, final: Path) -> None:
    """Delete earlier results; whatever their record does not list moves into the new ones.

    What finds its place taken there stays, as ``NAME.kept``. May be begun again after a crash: the
    record goes last.
    """
    if (old / RECORD).is_file():
        remove_listed(old)
        for folder, _, names in os.walk(old):
            for name in names:
                source = Path(folder) / name
                target = final / source.relative_to(old)
                if source != old / RECORD and not os.path.lexists(target):
                    with contextlib.suppress(FileExistsError, NotADirectoryError):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        source.rename(target)
        (old / RECORD).unlink(missing_ok=True)
    for folder, _, _ in os.walk(old, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    if old.exists():
        number = 1
        while os.path.lexists(kept := final.with_name(f"{final.name}.kept{number if number > 1 else ''}")):
            number += 1
        old.rename(kept)


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

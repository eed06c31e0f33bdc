"""The folder of one image's results: it appears under its name complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import OutputError
from .base import writing

try:
    import fcntl
except ImportError:  # Windows has other locks; two runs into one folder are not told apart there
    fcntl = None  # type: ignore[assignment]

#: The file that every finished folder of results holds.
RECORD = "run.json"
#: The part of an unfinished folder that another run can go on from.
JOURNAL = "journal"
_SUFFIXES = re.compile(r"(\.ome)?\.(tiff?|zarr|btf|tf[28])$|\.[^. ]{1,12}$", re.IGNORECASE)


def result_name(path: Path | str) -> str:
    """Return the name of the folder for an image's results: its file name without the suffix.

    The name is always one plain folder name, whatever the image is called; ``...tif`` does not become
    the parent folder.
    """
    name = Path(path).name
    stem = _SUFFIXES.sub("", name).strip(". ") or name.strip(". ")
    stem = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", stem)
    return stem or "image"


class OutputFolder:
    """A folder that is filled beside its final place and renamed when complete.

    Parameters
    ----------
    final
        The folder to be made.
    overwrite
        Replace an existing folder of results. Any other existing folder is refused: nothing is ever
        deleted that was not written by us.
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
        self.path = final.with_name(f".{final.name}.partial")
        self._lock = -1
        self._check()
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_symlink():
                raise OutputError(f"{self.path}: is a link; remove it")
            self.path.mkdir(exist_ok=True)
            self._take()
            self._clear()

    def _clear(self) -> None:
        """Delete what a stopped run left, apart from what this one can go on from."""
        for item in self.path.iterdir():
            if not (self.resume and item.name == JOURNAL):
                _remove(item)

    def _check(self) -> None:
        if not os.path.lexists(self.final):
            return
        if self.final.is_symlink() or not self.final.is_dir():
            raise OutputError(f"{self.final}: exists and is not a folder; choose another with -o")
        if any(self.final.iterdir()) and not (self.final / RECORD).is_file():
            raise OutputError(
                f"{self.final}: exists and holds something else than results (no {RECORD}); choose another "
                "with -o"
            )
        if not self.overwrite:
            raise OutputError(f"{self.final}: exists; replace it with --overwrite or choose another with -o")

    def _take(self) -> None:
        """Lock the folder against other runs; the lock goes with this process."""
        if fcntl is None:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise OutputError(
                f"{self.final}: another run is writing it; wait for that or choose another with -o"
            ) from None
        except OSError:
            pass  # some network folders have no locks

    def commit(self) -> None:
        """Give the folder its final name.

        Raises
        ------
        OutputError
            Something has come in the way.
        """
        self._check()
        with writing(self.final):
            old = self.final.with_name(f".{self.final.name}.replaced")
            if self.final.exists():
                _remove(old)
                self.final.rename(old)
            _remove(self.path / JOURNAL)
            self.path.rename(self.final)
            _remove(old)
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
        # After a commit there is nothing at the temporary path any more.
        if self.resume and self.path.is_dir():
            with contextlib.suppress(OSError):
                self._clear()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self._release()


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

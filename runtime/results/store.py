"""Results in a store such as a bucket: made on the disk, sent when they are whole, the record last.

::

    .cellseg-unfinished   is sent first: it shows early whether one may write there, and that what
          │               lies there without a record is ours
          │               an earlier record goes, before any of its files is replaced
          │               all files, and a look at whether they arrived whole
    run.json              from now on these are results
          ▼               the mark goes, and what only the earlier record listed
"""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ..common.addresses import Address
from ..common.spelling import option
from ..errors import OutputError
from ..options import SegmentOptions
from ..readers.fetched import SCRATCH
from ..streaming.setup import Setup
from ..writers.contents import RECORD, TABLE, File, listed
from ..writers.folder import MARK, taken
from .folder import ResultFolder
from .identity import Source
from .record import RunRecord
from .report import Report
from .result import Result
from .target import Opened, Target


class StoredFolder(Target):
    """As :class:`~.folder.ResultFolder`, at an address.

    Parameters
    ----------
    address
        The folder to make.
    options, source, height, width
        As there.

    Raises
    ------
    OutputError
        The folder exists, the store cannot be reached, or one may not write there.
    """

    def __init__(
        self, address: Address, options: SegmentOptions, source: Source, height: int, width: int
    ) -> None:
        self._address = address
        self._earlier = _check(address, overwrite=options.overwrite)
        (address / MARK).write(b"cellseg\n")
        #: What goes if this run fails; earlier results do not, as long as they are whole.
        self._ours = [MARK]
        with contextlib.ExitStack() as stack:
            stack.callback(self._leave)
            self._scratch = tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
            local = Path(self._scratch.name) / (address.name or "results")
            self._inner = stack.enter_context(ResultFolder(local, options, source, height, width))
            self._stack = stack.pop_all()

    def open(self, setup: Setup) -> Opened:
        """Start every file."""
        return self._inner.open(setup)

    def finish(self) -> None:
        """Finish every file, and take down which there are."""
        self._inner.finish()

    def commit(self, report: Report) -> Result:
        """Send all files, and at last the record that lists them."""
        made = self._inner.commit(report)
        assert made.folder is not None
        names = [file.path for file in made.record.files]
        stale = sorted({*self._earlier} - {*names})
        self._ours = [*names, *stale, RECORD, MARK]
        self._address.remove([RECORD])
        self._address.send(made.folder, names)
        self._address.send(made.folder, [RECORD])
        self._ours = []
        with contextlib.suppress(OutputError):  # the results are whole, whatever lies beside them
            self._address.remove([*stale, MARK])
        # What is on the disk serves who looks at the result, and goes with it.
        result = Result(made.record, made.folder, address=str(self._address))
        weakref.finalize(result, self._scratch.cleanup)
        return result

    def _leave(self) -> None:
        """Take away what a run that failed has sent."""
        if self._ours:
            self._scratch.cleanup()
            with contextlib.suppress(OutputError):
                self._address.remove(self._ours)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _check(address: Address, *, overwrite: bool) -> list[str]:
    """Return the files of earlier results that are to be replaced.

    Raises
    ------
    OutputError
        There is something that may not be replaced.
    """
    there = address.files()
    if RECORD in there:
        if not overwrite:
            raise taken(address)
        return [file.path for file in _listed(address)]
    if MARK not in there and there:
        raise OutputError(
            f"{address}: exists and holds something else than results (no {RECORD}); choose another with "
            f"{option('output')}"
        )
    return sorted(set(there) - {MARK})  # of a run that was killed while it sent them


def open_stored(address: Address) -> Result:
    """Read the record of results in a store; the files are fetched when they are first asked for.

    Raises
    ------
    OutputError
        There are no results, or of a newer release.
    """
    if not (address / RECORD).is_file():
        raise OutputError(f"{address}: holds no results (no {RECORD}); name a folder that cellseg-infer made")
    text = (address / RECORD).read().decode("utf-8", "replace")
    return Result(RunRecord.from_json(text, str(address / RECORD)), None, address=str(address))


def fetch_results(address: Address, folder: Path) -> None:
    """Copy finished results to the disk."""
    (folder / RECORD).write_bytes((address / RECORD).read())
    for file in listed(folder):
        place = folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        (address / file.path).fetch(place)


def fetch_table(result: Result, folder: Path) -> Path:
    """Copy the table of results in a store into a folder; return that."""
    assert result.address is not None
    (Address(result.address) / TABLE).fetch(folder / TABLE)
    return folder


def harm(address: Address, files: Iterable[File]) -> str | None:
    """Return in which file results in a store are not what their record says, by size; ``None`` for none."""
    there = address.files()
    for file in files:
        if (size := there.get(file.path)) is None:
            return f"{file.path} is missing"
        if size != file.bytes:
            return f"{file.path} has {size:,} bytes, and {file.bytes:,} were written"
    return None


def _listed(address: Address) -> list[File]:
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        (Path(folder) / RECORD).write_bytes((address / RECORD).read())
        return listed(Path(folder))

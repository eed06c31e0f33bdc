"""What every writer of results is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..common.files import writing
from ..common.threads import cores
from ..errors import OutputError
from ..instances import Strip


class Discarding(ABC):
    """A context manager: left before :meth:`commit`, by an error or not, it removes what there is."""

    @abstractmethod
    def commit(self) -> None:
        """Finish the result; all of it has been written.

        Raises
        ------
        OutputError
            It cannot be written.
        """

    def written(self) -> dict[Path, int]:
        """Return the files of the result and their sizes in bytes; there after :meth:`commit`.

        Raises
        ------
        OutputError
            One has gone since.
        """
        path: Path | None = getattr(self, "path", None)
        if path is None:
            return {}
        try:
            return {path: path.stat().st_size}
        except OSError as error:
            raise OutputError(f"{path}: was removed while it was written; run it again") from error

    def discard(self) -> None:
        """Close files and remove what was written; does nothing after :meth:`commit`."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Writer(Discarding):
    """Takes the strips of one image from top to bottom and writes one result.

    Each strip is passed once, in order, from one thread at a time. It does not change; the memory of its
    labels is used for another strip as soon as nothing refers to them.
    """

    #: Name of its thread in the record of a run, and of those that help it.
    stage = "write"

    @abstractmethod
    def write(self, strip: Strip) -> None:
        """Take the next strip.

        Raises
        ------
        OutputError
            It cannot be written.
        """


@contextmanager
def opening(writer: Discarding, path: Path) -> Iterator[None]:
    """Like :func:`writing`, for a writer that makes its file: discards it after any error."""
    try:
        with writing(path):
            yield
    except BaseException:
        writer.discard()
        raise


def compressors(name: str) -> tuple[ThreadPoolExecutor, int]:
    """Return threads of this name that compress what a writer hands them, and how many they are."""
    count = cores()
    return ThreadPoolExecutor(count, name), count


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file at once; after an error it is not there.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    with writing(path):
        try:
            path.write_bytes(data)
        except OSError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise

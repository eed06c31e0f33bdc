"""Shared by readers that decode block by block: bytes of a file, a bounded cache, threads.

Nothing here knows a file format.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from ..common.spelling import option
from ..common.threads import cores
from ..errors import ImageError

Item = TypeVar("Item")
#: Decoded blocks are kept up to this many bytes, or one and a half rows of blocks where that is more.
CACHE_BYTES = 64 << 20


class ByteSource:
    """Positioned reads from a file, from any number of threads.

    A memory map would be simpler and would kill the process with SIGBUS when the file is cut short or
    its network folder goes away; this raises :class:`ImageError` instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {reason(error)}") from None

    def read(self, offset: int, count: int) -> bytes:
        """Return exactly ``count`` bytes from ``offset``.

        Raises
        ------
        ImageError
            The file ends before, or can no longer be read.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ImageError(
                f"{self.path}: bytes {offset} to {offset + count} lie beyond its end at {self.size}: "
                "the file is damaged or was not copied completely"
            )
        try:
            data = self._pread(offset, count)
        except (OSError, ValueError) as error:
            raise ImageError(f"{self.path}: cannot be read any more: {reason(error)}") from None
        if len(data) != count:
            raise ImageError(f"{self.path}: became shorter while it was being read")
        return data

    def _pread(self, offset: int, count: int) -> bytes:
        parts = []
        while count:
            if hasattr(os, "pread"):
                part = os.pread(self._file.fileno(), count, offset)
            else:
                with self._lock:
                    self._file.seek(offset)
                    part = self._file.read(count)
            if not part:
                break
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BlockCache:
    """The decoded blocks that were used last, up to a number of bytes.

    Bands of rows do not end where tiles end, so the last row of tiles of one band is the first of the
    next; without this each would be decoded twice.
    """

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self.capacity = capacity
        self._held = 0
        self._blocks: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> npt.NDArray[Any] | None:
        """Return a block, or ``None`` where it is not held."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: Hashable, block: npt.NDArray[Any]) -> None:
        """Keep a block and forget the oldest ones beyond the capacity."""
        with self._lock:
            old = self._blocks.pop(key, None)
            self._held += block.nbytes - (0 if old is None else old.nbytes)
            self._blocks[key] = block
            while self._held > self.capacity and self._blocks:
                self._held -= self._blocks.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self._held = 0


class Workers:
    """A pool of threads that starts with its first use."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or min(8, cores())
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def each(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Call ``work`` for each item, side by side; the first error ends it and is raised."""
        todo = list(items)
        if len(todo) < 2 or self.threads < 2:
            for item in todo:
                work(item)
            return
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cellseg-read")
        futures = [self._pool.submit(work, item) for item in todo]
        _, left = wait(futures, return_when=FIRST_EXCEPTION)
        for future in left:
            future.cancel()
        wait(futures)
        for future in futures:
            if not future.cancelled():
                future.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def skipping() -> str:
    """Return what can be done about a file of which a part cannot be decoded, for messages."""
    return f"copy the file again, or read such parts as black with {option('skip_bad_tiles', True)}"


def reason(error: BaseException) -> str:
    """Return one short line that says what went wrong, without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    if len(text) > 160:
        text = text[:157] + "…"
    return text or type(error).__name__

"""A pyramid of label images on its way to the disk, row of chunks by row of chunks.

Every full row of chunks becomes tasks for a pool, one a shard. A task compresses its chunks and, while
they are in cache, leaves every second row and column of them for the next level of the pyramid. Once all
rows of chunks of a shard are there, their bytes are written. So the thread that hands in rows copies
nothing, and waits only when too much is on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..common.buffers import Recycler
from .shards import encode_chunks, write_shard

#: Edge of a chunk in pixels.
CHUNK = 256
#: Size of a shard in pixels: one file holds so much. A file costs as much time as compressing half of that.
SHARD_HEIGHT, SHARD_WIDTH = 1024, 4096
#: The pyramid ends when the longer edge is at most this.
SMALLEST = 1024
#: Rows of chunks that are gathered for a level or on their way from it.
BUFFERS = 3

Rows = npt.NDArray[np.int32]


def pyramid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return rows and columns of each level: halved, rounding up, until small enough."""
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST:
        step = 1 << len(shapes)
        shapes.append((-(-height // step), -(-width // step)))
    return shapes


def shard_chunks(height: int, width: int) -> tuple[int, int]:
    """Return how many rows and columns of chunks a shard of a level has."""
    return min(SHARD_HEIGHT // CHUNK, -(-height // CHUNK)), min(SHARD_WIDTH // CHUNK, -(-width // CHUNK))


@dataclass(slots=True)
class _Level:
    """One resolution, and the row of chunks that is being gathered."""

    folder: Path
    height: int
    width: int
    #: Row at which that row of chunks begins, and the one behind the last that is written here.
    row: int
    end: int
    #: How many rows of it are there or promised.
    filled: int = 0
    #: Those rows: of the full image in parts as they came, of the others in one buffer.
    parts: list[Rows] = field(default_factory=list)
    buffers: Recycler = field(default_factory=lambda: Recycler(BUFFERS))
    #: Compressed rows of chunks of the shards that are not complete yet, by shard.
    encoded: list[list[bytes | None]] = field(default_factory=list)

    @property
    def wanted(self) -> int:
        """Rows of this row of chunks."""
        return min(CHUNK, self.end - self.row)

    def promise(self, rows: int) -> Rows:
        """Return where the next rows go."""
        if not self.parts:
            self.parts.append(self.buffers.take((self.wanted, self.width), np.int32))
        self.filled += rows
        return self.parts[0][self.filled - rows : self.filled]

    def take_full(self) -> _ChunkRow | None:
        """Return the row of chunks if it is full, and begin the next one."""
        if self.filled < self.wanted:
            return None
        full = _ChunkRow(self.row // CHUNK, self.parts)
        self.row += self.filled
        self.filled, self.parts = 0, []
        return full


@dataclass(frozen=True, slots=True)
class _ChunkRow:
    """A full row of chunks: its number from the top, and its rows in parts."""

    number: int
    parts: Sequence[Rows]

    @property
    def rows(self) -> int:
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Pending:
    """The tasks of a row of chunks, and what the next level can begin when they are done."""

    #: One a shard; they return its chunks.
    tasks: list[Future[list[bytes | None]]]
    level: int
    #: Number of the row of chunks from the top.
    number: int
    following: _ChunkRow | None

    @property
    def done(self) -> bool:
        return all(task.done() for task in self.tasks)


class PyramidWriter:
    """Writes the shards of all levels of a label image.

    Parameters
    ----------
    path
        Folder of the group; level k is the folder k in it.
    shapes
        As from :func:`pyramid_shapes`, or those of some levels.
    pool
        Threads that compress.
    threads
        How many these are.
    rows
        The rows of the first of these levels that are written, half-open; all by default. They begin with
        a row of shards of the last of these levels, and end so or with the image.
    first
        Number of the first of these levels.
    """

    def __init__(
        self,
        path: Path,
        shapes: Sequence[tuple[int, int]],
        pool: ThreadPoolExecutor,
        threads: int,
        *,
        rows: tuple[int, int] | None = None,
        first: int = 0,
    ) -> None:
        y, y1 = rows or (0, shapes[0][0])
        self._levels = [
            _Level(path / str(first + number), *shape, y >> number, -(-y1 // (1 << number)))
            for number, shape in enumerate(shapes)
        ]
        self._pool = pool
        self._pending: deque[_Pending] = deque()
        #: Files on their way; what is returned is their size in bytes, 0 where there is none.
        self._files: deque[tuple[Path, Future[int]]] = deque()
        #: Size in bytes of every shard that is there.
        self.written: dict[Path, int] = {}
        # Each thread has a shard to write, and another one waits.
        self._most = max(2, -(-2 * threads // -(-shapes[0][1] // SHARD_WIDTH)))

    def push(self, rows: Rows) -> None:
        """Take rows of the full image, which must not change any more."""
        if not rows[:1].flags.c_contiguous:
            rows = np.ascontiguousarray(rows)
        full = self._levels[0]
        while len(rows):
            take = min(len(rows), full.wanted - full.filled)
            full.parts.append(rows[:take])
            full.filled += take
            rows = rows[take:]
            if (chunk_row := full.take_full()) is not None:
                self._begin(0, chunk_row)
        while self._pending and (len(self._pending) > self._most or self._pending[0].done):
            self._settle()
        while self._files and self._files[0][1].done():
            self._note_file()

    def finish(self) -> None:
        """Wait until all is written."""
        while self._pending:
            self._settle()
        while self._files:
            self._note_file()

    def _begin(self, number: int, chunk_row: _ChunkRow) -> None:
        """Hand a full row of chunks to the pool, and reserve its rows in the next level."""
        level = self._levels[number]
        smaller = following = None
        if number + 1 < len(self._levels):
            smaller = self._levels[number + 1].promise(-(-chunk_row.rows // 2))
            following = self._levels[number + 1].take_full()
        wide = shard_chunks(level.height, level.width)[1] * CHUNK
        tasks = []
        for x in range(0, level.width, wide):
            thinned = None if smaller is None else smaller[:, x // 2 : (x + wide) // 2]
            parts = [part[:, x : x + wide] for part in chunk_row.parts]
            tasks.append(self._pool.submit(encode_chunks, parts, CHUNK, thinned))
        self._pending.append(_Pending(tasks, number, chunk_row.number, following))

    def _settle(self) -> None:
        """Wait for the oldest row of chunks; then a shard, and a row of the next level, may be complete."""
        oldest = self._pending.popleft()
        level = self._levels[oldest.level]
        tall, wide = shard_chunks(level.height, level.width)
        if not level.encoded:
            level.encoded = [[] for _ in oldest.tasks]
        for chunks, task in zip(level.encoded, oldest.tasks, strict=True):
            found = task.result()
            chunks += found + [None] * (wide - len(found))
        if (oldest.number + 1) % tall == 0 or (oldest.number + 1) * CHUNK >= level.end:
            folder = level.folder / "c" / str(oldest.number // tall)
            for number, chunks in enumerate(level.encoded):
                chunks += [None] * (tall * wide - len(chunks))
                path = folder / str(number)
                self._files.append((path, self._pool.submit(write_shard, path, chunks)))
            level.encoded = []
        if oldest.following is not None:
            self._begin(oldest.level + 1, oldest.following)

    def _note_file(self) -> None:
        """Wait for the oldest file."""
        path, task = self._files.popleft()
        if size := task.result():
            self.written[path] = size

"""Threads joined by bounded queues: back-pressure, one clock a stage, and a prompt common end.

A stage is a function in a thread of its own that takes from channels and puts into channels. When
one fails, every channel wakes its waiters with :class:`Stopped`, so all threads end at their next
step, and the first error is the one that is raised. This module knows nothing of images.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import UsageError

Item = TypeVar("Item")

#: Environment variable with the number of cores that a process may use.
SHARE = "CELLSEG_CORES"


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, at least 1.

    That is the least of the cores of the machine, those that the process is bound to, the processor time
    that its container may take (cgroups, rounded up), and the environment variable ``CELLSEG_CORES``: the
    share of one of several processes on a machine.

    Parameters
    ----------
    root
        Where the system's files lie.

    Raises
    ------
    UsageError
        ``CELLSEG_CORES`` is no whole number above 0.
    """
    limits = [math.ceil(quota) for quota in _quotas(root)]
    if share := os.environ.get(SHARE):
        if not share.isascii() or not share.isdigit() or int(share) < 1:
            raise UsageError(f"{SHARE} is {share!r}; wanted the number of cores to use, for example 4")
        limits.append(int(share))
    return max(1, min([bound_cores(), *limits]))


def bound_cores() -> int:
    """Return how many cores this process is bound to: those of the machine, where it is not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limits of processor time of this process's control groups and those above it, in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup"
        if controllers:  # version 1: a folder for each set of controllers
            top /= controllers if (top / controllers).is_dir() else "cpu"
        group = top / name.strip("/")
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):
                if controllers:
                    quota = int((folder / "cpu.cfs_quota_us").read_text())
                    period = int((folder / "cpu.cfs_period_us").read_text())
                else:
                    quota, period = map(int, (folder / "cpu.max").read_text().split())
                if quota > 0 < period:
                    yield quota / period
            if folder == top:
                break


class Stopped(Exception):  # noqa: N818  (a signal, not an error)
    """The flow has been stopped: leave, without a message."""


@dataclass(slots=True)
class Clock:
    """Where the time of a stage goes, in seconds."""

    #: When it started and ended, by ``time.perf_counter``; ``None`` before.
    started: float | None = None
    ended: float | None = None
    #: Waiting for something to do, or for room to put what was done.
    wait: float = 0.0

    @property
    def busy(self) -> float:
        """Seconds of work so far."""
        if self.started is None:
            return 0.0
        return max(0.0, (self.ended or time.perf_counter()) - self.started - self.wait)


class Channel(Generic[Item]):
    """A bounded queue between two stages; also a pool, when it is filled at the start.

    Parameters
    ----------
    flow
        The flow it belongs to.
    capacity
        Items it holds before :meth:`put` waits.
    """

    def __init__(self, flow: Flow, capacity: int) -> None:
        self._flow = flow
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._closed = False
        self.changed = threading.Condition()
        flow._join(self)

    def put(self, item: Item) -> None:
        """Add an item as soon as there is room.

        Raises
        ------
        Stopped
            The flow has been stopped.
        """
        with self.changed:
            self._await(lambda: len(self._items) < self._capacity)
            self._items.append(item)
            self.changed.notify_all()

    def get(self) -> Item:
        """Return the oldest item as soon as there is one.

        Raises
        ------
        Stopped
            The flow has been stopped.
        EOFError
            The channel is empty and closed.
        """
        with self.changed:
            self._await(lambda: bool(self._items) or self._closed)
            if not self._items:
                raise EOFError
            item = self._items.popleft()
            self.changed.notify_all()
            return item

    def close(self) -> None:
        """Say that nothing more will be put."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Yield items until the channel is closed and empty."""
        with contextlib.suppress(EOFError):
            while True:
                yield self.get()

    def _await(self, ready: Callable[[], bool]) -> None:
        """Wait, with the lock held, and charge the time to the stage that waits."""
        if self._flow.stopped:
            raise Stopped
        if ready():
            return
        with self._flow.waiting():
            while not ready():
                self.changed.wait()
                if self._flow.stopped:
                    raise Stopped


class Flow:
    """Stages that run side by side until all are done or one fails.

    Examples
    --------
    >>> flow = Flow()
    >>> numbers: Channel[int] = flow.channel(2)
    >>> found = []
    >>> def count():
    ...     for i in range(3):
    ...         numbers.put(i)
    ...     numbers.close()
    >>> flow.stage("count", count)
    >>> flow.stage("collect", lambda: found.extend(numbers))
    >>> flow.run()
    >>> found
    [0, 1, 2]
    """

    def __init__(self) -> None:
        self.stopped = False
        self.clocks: dict[str, Clock] = {}
        self._channels: list[Channel[object]] = []
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._ended = threading.Semaphore(0)
        self._local = threading.local()

    def channel(self, capacity: int) -> Channel[Item]:
        """Return a new channel."""
        return Channel(self, capacity)

    def stage(self, name: str, work: Callable[[], None]) -> None:
        """Add a stage; it starts with :meth:`run`. Its clock is ``clocks[name]``."""
        self.clocks[name] = Clock()
        thread = threading.Thread(target=self._work, args=(name, work), name=f"cellseg-{name}", daemon=True)
        self._threads.append(thread)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Charge the enclosed time to the calling stage as waiting."""
        started = time.perf_counter()
        try:
            yield
        finally:
            clock: Clock | None = getattr(self._local, "clock", None)
            if clock is not None:
                clock.wait += time.perf_counter() - started

    def run(self, tick: Callable[[], None] | None = None, interval: float = 0.2) -> None:
        """Start all stages and wait for their end.

        Parameters
        ----------
        tick
            Called in the calling thread about every ``interval`` seconds.
        interval
            Seconds.

        Raises
        ------
        BaseException
            The first error of any stage, of ``tick``, or :class:`KeyboardInterrupt`; by then every
            thread has ended.
        """
        started = 0
        try:
            for thread in self._threads:
                thread.start()
                started += 1
            left = started
            while left:
                if self._ended.acquire(timeout=interval):
                    left -= 1
                elif tick is not None:
                    tick()
        except BaseException as error:
            self.stop(error)
        for thread in self._threads[:started]:
            thread.join()
        if self._error is not None:
            raise self._error

    def stop(self, error: BaseException | None = None) -> None:
        """End every stage at its next step; the first error given is the one that is raised."""
        with self._lock:
            if self._error is None:
                self._error = error
            self.stopped = True
        for channel in self._channels:
            with channel.changed:
                channel.changed.notify_all()

    def _join(self, channel: Channel[Item]) -> None:
        self._channels.append(channel)  # type: ignore[arg-type]

    def _work(self, name: str, work: Callable[[], None]) -> None:
        clock = self._local.clock = self.clocks[name]
        clock.started = time.perf_counter()
        try:
            work()
        except Stopped:
            pass
        except BaseException as error:  # handed to the caller of run
            self.stop(error)
        finally:
            clock.ended = time.perf_counter()
            self._ended.release()

"""Whose turn it is, where several threads share one engine.

An engine is prepared for one shape of batch at a time. Runs of the same shape go on side by side;
a run of another shape waits until they have ended, and those that come after it wait behind it.
Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from ..errors import BackendError


class Turns:
    """Threads that hold a shape, and threads that wait for theirs, first come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shape: Hashable = None
        #: Threads, one entry for each time that one holds the shape.
        self._holders: list[int] = []
        self._waiting: deque[object] = deque()

    @property
    def held(self) -> bool:
        """Whether somebody holds a shape."""
        return bool(self._holders)

    def blocks(self, shape: Hashable) -> bool:
        """Tell whether somebody holds another shape."""
        return bool(self._holders) and shape != self._shape

    @contextlib.contextmanager
    def hold(self, shape: Hashable, prepare: Callable[[], None]) -> Iterator[None]:
        """Wait until this shape may be used, and keep it so.

        Parameters
        ----------
        shape
            What is wanted.
        prepare
            Called where nobody else holds anything.

        Raises
        ------
        BackendError
            This thread holds another shape itself, and would wait for ever.
        """
        me = threading.get_ident()
        with self._changed:
            if me not in self._holders:
                self._wait(shape)
            elif shape != self._shape:
                raise BackendError(
                    "this thread is segmenting with this engine already, with tiles of another size; "
                    "open another engine for the image within"
                )
            if not self._holders:
                prepare()
                self._shape = shape
            self._holders.append(me)
        try:
            yield
        finally:
            with self._changed:
                self._holders.remove(me)
                self._changed.notify_all()

    def _wait(self, shape: Hashable) -> None:
        ticket = object()
        self._waiting.append(ticket)
        try:
            while self._waiting[0] is not ticket or self.blocks(shape):
                self._changed.wait()
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

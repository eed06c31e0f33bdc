"""How far a slide is, and how long the engine has been busy with it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slide is."""

    #: Pixels of the slide, and those whose planes are ready.
    total: int
    done: int
    #: Cells written.
    cells: int
    #: Seconds since the first tile.
    seconds: float
    #: Stage → (seconds busy, seconds waiting).
    stages: dict[str, tuple[float, float]]
    #: Pixels whose planes an earlier run had left.
    resumed: int = 0

    @property
    def mpx_s(self) -> float:
        """Megapixels of the slide a second, so far."""
        return (self.done - self.resumed) / 1e6 / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last tile at this rate; ``None`` before the first one."""
        computed = self.done - self.resumed
        return self.seconds * (self.total - self.done) / computed if computed else None

    @property
    def bottleneck(self) -> str:
        """The stage that has been busy longest."""
        return max(self.stages, key=lambda name: self.stages[name][0])


class EngineClock:
    """Measures the time in which at least one batch is on its way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying = 0
        self._since = self._busy = 0.0

    def change(self, by: int) -> None:
        """Count a batch in (1) or out (-1)."""
        with self._lock:
            now = time.perf_counter()
            if self._flying:
                self._busy += now - self._since
            self._since = now
            self._flying += by

    @property
    def busy(self) -> float:
        """Seconds so far."""
        with self._lock:
            return self._busy + (time.perf_counter() - self._since if self._flying else 0.0)

"""The terminal while a cluster works: how many images are done, and what each worker is at."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..batch.jobs import Outcome
from ..common.names import readable


class Crowd:
    """Some lines on the terminal that go when all is done.

    Parameters
    ----------
    images
        Names of the jobs' images, by number.
    console
        Where to draw; ``None`` draws nothing.
    """

    def __init__(self, images: list[str], console: Console | None) -> None:
        self._images = images
        self._live = console and Live(
            console=console, transient=True, refresh_per_second=4, get_renderable=self._lines
        )
        self._lock = threading.Lock()
        self._at: dict[str, dict[str, Any]] = {}
        #: Of an image in parts, what those that are done are of it.
        self._landed: dict[int, float] = {}
        self._done = self._cells = 0
        self._started = time.monotonic()

    def tell(self, event: dict[str, Any]) -> None:
        """Note what a worker says of the image that it is at."""
        with self._lock:
            if "landed" in event:
                self._at.pop(str(event["worker"]), None)
                self._landed[event["job"]] = event["landed"]
            else:
                self._at[str(event["worker"])] = event

    def ended(self, outcome: Outcome) -> None:
        """Note that an image is done, or failed."""
        with self._lock:
            self._at.pop(outcome.worker, None)
            self._landed = {job: part for job, part in self._landed.items() if not self._is(job, outcome)}
            self._done += 1
            self._cells += outcome.result.count if outcome.result else 0

    def _is(self, job: int, outcome: Outcome) -> bool:
        return self._images[job] == readable(Path(outcome.job.image).name)

    def _lines(self) -> Text:
        with self._lock:
            part = sum(event["done"] / max(event["total"], 1) for event in self._at.values())
            part += sum(self._landed.values())
            ready = self._done + part
            passed = time.monotonic() - self._started
            left = f", {_minutes(passed * (len(self._images) - ready) / ready)} left" if ready > 0.05 else ""
            lines = [f"{self._done} of {len(self._images)} images, {self._cells:,} cells{left}"]
            for worker, event in sorted(self._at.items()):
                share = event["done"] / max(event["total"], 1)
                lines.append(f"  worker {worker}: {Path(self._images[event['job']]).name} {share:4.0%}")
            return Text("\n".join(lines))

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

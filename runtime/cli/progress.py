"""The progress bar of a running slide."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..streaming.progress import Progress


class ProgressBar:
    """One line on the terminal that goes when the slide is done.

    Parameters
    ----------
    name
        Of the image.
    console
        Where to draw.
    """

    def __init__(self, name: str, console: Console) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=None, state="opening")

    def update(self, progress: Progress) -> None:
        """Show a state of the run."""
        state = f"{progress.mpx_s:.1f} Mpx/s  {progress.cells:,} cells  {progress.bottleneck} sets the pace"
        self._bar.update(self._task, total=progress.total, completed=progress.done, state=state)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

"""What a training leaves behind for people: log, ``metrics.csv``, TensorBoard, curves, overlays, progress.

Only rank 0 reports; for the others every method does nothing.
"""

from __future__ import annotations

import csv
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .pictures import Picture, curves, write

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("cellseg.train")

#: Seconds between lines of progress where no terminal shows a bar.
HEARTBEAT = 60.0
#: Seconds between two drawings of the curves, which take longer than a small validation.
REDRAW = 30.0


class Report:
    """The files of a run, continued at a step; a context manager.

    Parameters
    ----------
    folder
        The run's folder.
    step
        Steps already done. What the files hold beyond was written by a run that was killed before it
        could save its checkpoint; it is dropped, because those steps come again.
    steps
        Steps of the whole run.
    batch
        Images a step, all processes together.
    active
        Whether this process reports.
    """

    def __init__(self, folder: Path, step: int, steps: int, batch: int, *, active: bool) -> None:
        self.folder, self.steps, self.batch, self.active = folder, steps, batch, active
        self.metrics = folder / "metrics.csv"
        self._first, self._started, self._beat = step, time.perf_counter(), time.perf_counter()
        self._drawn = self._started
        self._columns: list[str] = []
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        """Open the files."""
        if not self.active:
            return self
        from torch.utils.tensorboard import SummaryWriter

        self._handler = logging.FileHandler(self.folder / "train.log", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._handler)
        self._drop_rows()
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._first or None)
        if sys.stderr.isatty():
            self._start_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.stop()
        self._board.close()
        self._draw()
        log.removeHandler(self._handler)
        self._handler.close()

    def progress(self, step: int, losses: dict[str, float]) -> None:
        """Show how far the training is: step, losses, images a second since it was started."""
        if not (self.active and losses):
            return
        now = time.perf_counter()
        done, seconds = step - self._first, now - self._started
        rate = done * self.batch / seconds
        if self._bar is not None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            self._bar.update(self._task, completed=step, description=f"{text}  {rate:.1f} images/s")
        elif now - self._beat > HEARTBEAT:
            self._beat = now
            minutes = (self.steps - step) * seconds / done / 60
            loss = losses["loss"]
            text = "step %d of %d, loss %.4f, %.1f images/s, %.0f min left"
            log.info(text, step, self.steps, loss, rate, minutes)

    def record(self, row: dict[str, float]) -> None:
        """Append one validation to the table, TensorBoard, the log and the curves."""
        if not self.active:
            return
        if self._columns and self._columns != list(row):  # an earlier release measured other things
            self.metrics.rename(self.metrics.with_name("metrics_before.csv"))
        self._columns = list(row)
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.9g}" for name, value in row.items()})
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name.replace("_", "/", 1), value, int(row["step"]))
        self._board.flush()
        log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if time.perf_counter() - self._drawn > REDRAW:
            self._draw()

    def picture(self, name: str, step: int, picture: Picture) -> None:
        """Write a picture of predictions to the folder and to TensorBoard."""
        if self.active:
            write(self.folder / name / f"step_{step:07d}.png", picture)
            self._board.add_image(name, picture, step, dataformats="HWC")

    def _drop_rows(self) -> None:
        if not self.metrics.exists():
            return
        with self.metrics.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if float(row["step"]) <= self._first]
            self._columns = list(reader.fieldnames or [])
        with self.metrics.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)

    def _draw(self) -> None:
        if self.metrics.exists():
            curves(self.metrics, self.folder / "curves.png")
        self._drawn = time.perf_counter()

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: list[Any] = [MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn()]
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
        self._task = self._bar.add_task("starting", total=self.steps, completed=self._first)
        self._bar.start()

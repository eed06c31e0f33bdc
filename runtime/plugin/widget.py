"""A widget of napari that segments the chosen layer and adds what was found as layers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QWidget,
)

from ..errors import CellsegError
from ..model.catalog import DEFAULT, model_names
from ..pipeline import segment
from ..results.layers import Layer
from ..results.result import Result
from ..streaming.progress import Progress
from .chosen import Chosen, chosen_pixels
from .read import MOST_OUTLINES

if TYPE_CHECKING:
    import napari

#: Entry of the list of models that asks for a file.
OTHER = "another file …"


class _Cancelled(Exception):  # noqa: N818  # no fault
    """The user does not want the rest."""


class _Run(QObject):  # type: ignore[misc]  # Qt is not there where types are checked
    """One call of ``segment()`` in a thread of its own; its signals arrive in the window's thread."""

    progressed = Signal(object)
    finished = Signal(object)
    failed = Signal(str)

    def __init__(self, pixels: Any, model: str, options: dict[str, Any]) -> None:
        super().__init__()
        self._call = pixels, model, options
        self._cancelled = threading.Event()
        self.thread_of_run = threading.Thread(target=self._work, name="cellseg-napari", daemon=True)

    def cancel(self) -> None:
        """Ask the run to end; it does so within a moment and leaves nothing behind."""
        self._cancelled.set()

    def _work(self) -> None:
        pixels, model, options = self._call
        try:
            self.finished.emit(segment(pixels, model, progress=self._watch, **options))
        except _Cancelled:
            self.failed.emit("cancelled")
        except CellsegError as error:
            self.failed.emit(" ".join(str(error).split()))
        except Exception as error:  # a fault of ours: the window must not wait for ever
            self.failed.emit(f"{type(error).__name__}: {error}")
            raise

    def _watch(self, progress: Progress) -> None:
        if self._cancelled.is_set():
            raise _Cancelled
        self.progressed.emit(progress)


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Chooses a layer, a model and how large cells are; runs and cancels.

    Parameters
    ----------
    napari_viewer
        The window that it stands in.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._run: _Run | None = None
        self._chosen: Chosen | None = None
        self.layer, self.model = QComboBox(), QComboBox()
        self.diameter, self.min_score, self.pixel_size = QLineEdit("auto"), QLineEdit(), QLineEdit()
        self.min_score.setPlaceholderText("as the model says")
        self.pixel_size.setPlaceholderText("unknown")
        self.start, self.cancel = QPushButton("Segment"), QPushButton("Cancel")
        self.bar, self.status = QProgressBar(), QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.model.addItems([*model_names(), OTHER])
        self.model.setCurrentText(DEFAULT)
        self._lay_out()
        self.model.activated.connect(self._maybe_ask_for_model)
        self.layer.currentTextChanged.connect(self._show_scale)
        self.start.clicked.connect(self.run)
        self.cancel.clicked.connect(self._cancel)
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.connect(self._list_layers)
        self._list_layers()
        self._set_running(False)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.addRow("Layer", self.layer)
        form.addRow("Model", self.model)
        form.addRow("Diameter, px", self.diameter)
        form.addRow("Smallest score", self.min_score)
        form.addRow("µm a pixel", self.pixel_size)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start)
        buttons.addWidget(self.cancel)
        form.addRow(buttons)
        form.addRow(self.bar)
        form.addRow(self.status)

    def _list_layers(self, event: Any = None) -> None:
        """Show the pictures that are there; the one that was chosen stays so."""
        names = [layer.name for layer in self._viewer.layers if type(layer).__name__ == "Image"]
        before = self.layer.currentText()
        self.layer.clear()
        self.layer.addItems(names)
        if before in names:
            self.layer.setCurrentText(before)

    def _show_scale(self, name: str) -> None:
        scale = float(self._viewer.layers[name].scale[-1]) if name in self._viewer.layers else 1.0
        self.pixel_size.setText("" if scale == 1.0 else f"{scale:g}")

    def _maybe_ask_for_model(self) -> None:
        if self.model.currentText() == OTHER:
            path, _ = QFileDialog.getOpenFileName(self, "Model", "", "Models (*.onnx *.plan)")
            self.model.setCurrentText(DEFAULT)
            if path:
                self.model.insertItem(0, path)
                self.model.setCurrentIndex(0)

    def _set_running(self, running: bool) -> None:
        self.start.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        self.bar.setValue(0)

    def run(self) -> None:
        """Begin, or say in one line why not."""
        try:
            options = self._options()
            if (name := self.layer.currentText()) not in self._viewer.layers:
                raise CellsegError("there is no picture; open one first")
            self._chosen = chosen_pixels(self._viewer.layers[name], self._viewer.dims)
        except CellsegError as error:
            self.status.setText(str(error))
            return
        self._run = _Run(self._chosen.pixels, self.model.currentText(), options)
        self._run.progressed.connect(self._progress)
        self._run.finished.connect(self._finish)
        self._run.failed.connect(self._fail)
        self._set_running(True)
        self.status.setText("opening the model")
        self._run.thread_of_run.start()

    def _options(self) -> dict[str, Any]:
        diameter = self.diameter.text().strip() or "auto"
        options: dict[str, Any] = {"diameter": diameter if diameter in ("auto", "none") else None}
        for name, field, what in (
            ("diameter", self.diameter, "Diameter"),
            ("min_score", self.min_score, "Smallest score"),
            ("pixel_size", self.pixel_size, "µm a pixel"),
        ):
            text = field.text().strip()
            if text and options.get(name) is None:
                try:
                    options[name] = float(text)
                except ValueError:
                    more = ", auto or none" if name == "diameter" else ""
                    raise CellsegError(f"{what}: found '{text}', wanted a number{more}") from None
        return options

    def _cancel(self) -> None:
        if self._run is not None:
            self._run.cancel()
            self.status.setText("cancelling")

    def _progress(self, progress: Progress) -> None:
        self.bar.setValue(100 * progress.done // max(progress.total, 1))
        self.status.setText(f"{progress.cells:,} cells, {progress.mpx_s:.1f} Mpx/s")

    def _finish(self, result: Result) -> None:
        self._set_running(False)
        for layer in self._layers(result):
            self._viewer.add_layer(_created(layer))
        self.status.setText("\n".join([f"{result.count:,} cells", *result.notes]))

    def _fail(self, reason: str) -> None:
        self._set_running(False)
        self.status.setText(reason)

    def _layers(self, result: Result) -> list[Layer]:
        """Return what was found, named after the layer that it was found in, and where that one lies."""
        chosen = self._chosen
        assert chosen is not None
        placed = []
        for data, given, kind in result.to_napari(outlines=result.count <= MOST_OUTLINES):
            what = Path(given["name"]).name.rpartition(" ")[2]
            name = f"{chosen.name} {what}"
            placed.append(
                (data, {**given, "name": name, "scale": chosen.scale, "translate": chosen.translate}, kind)
            )
        return placed


def _created(layer: Layer) -> Any:
    from napari.layers import Layer as NapariLayer

    return NapariLayer.create(*layer)

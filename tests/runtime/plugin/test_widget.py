"""The widget and the reader in a real napari, on a screen that may be a virtual one: `make test-extras`."""

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime import segment

napari = pytest.importorskip("napari", reason="napari is not installed; run make test-extras")
pytest.importorskip(
    "qtpy.QtWidgets", reason="napari has no Qt here; run make test-extras", exc_type=Exception
)
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    pytest.skip("there is no screen; run make test-extras", allow_module_level=True)


@pytest.fixture
def viewer():
    made = napari.Viewer(show=True)
    made.window.resize(1300, 850)
    yield made
    made.close()


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).normal(20, 3, (400, 520))
    for number in range(20):
        x, y = 50 + number % 5 * 100, 50 + number // 5 * 95
        cv2.circle(pixels, (x, y), 14 + number % 4, 180, -1)
    return np.clip(cv2.GaussianBlur(pixels, (0, 0), 1.5), 0, 255).astype(np.uint8)


def wait(until, seconds=120):
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing came of it"
        QApplication.processEvents()
        time.sleep(0.01)


def docked(viewer):
    """Return the widget as napari makes it from the manifest."""
    _, widget = viewer.window.add_plugin_dock_widget("cellseg", "Segment cells")
    return widget


def keep(viewer, name):
    """Keep a picture of the window for eyes, where a folder for it is named."""
    if folder := os.environ.get("CELLSEG_SCREENSHOTS"):
        viewer.screenshot(str(Path(folder) / f"{name}.png"), canvas_only=False, flash=False)


def test_the_widget_segments_and_adds_layers(viewer, picture):
    viewer.add_image(picture, name="cells", scale=(0.5, 0.5), translate=(3, 4))
    widget = docked(viewer)
    assert widget.layer.currentText() == "cells"
    assert widget.pixel_size.text() == "0.5"
    widget.run()
    assert not widget.start.isEnabled()
    wait(lambda: widget.start.isEnabled())
    names = [layer.name for layer in viewer.layers]
    assert names == ["cells", "cells labels", "cells cells", "cells outlines"], widget.status.text()
    labels = viewer.layers["cells labels"]
    assert labels.data.max() == 20
    assert list(labels.features["index"]) == list(range(1, 21))
    assert (labels.features["score"] > 0.4).all()
    assert np.array_equal(labels.scale, (0.5, 0.5))
    assert np.array_equal(labels.translate, (3, 4))
    assert "20 cells" in widget.status.text()
    viewer.reset_view()
    keep(viewer, "napari_widget")


def test_cancelling_leaves_nothing(viewer, picture):
    viewer.add_image(np.tile(picture, (6, 6)), name="large")
    widget = docked(viewer)
    widget.run()
    widget.cancel.click()
    wait(lambda: widget.start.isEnabled())
    assert widget.status.text() == "cancelled"
    assert len(viewer.layers) == 1


def test_what_cannot_be_is_one_line(viewer, picture):
    widget = docked(viewer)
    widget.run()
    assert widget.status.text() == "there is no picture; open one first"
    viewer.add_image(picture, name="cells")
    widget.diameter.setText("large")
    widget.run()
    assert widget.status.text() == "Diameter: found 'large', wanted a number, auto or none"
    widget.diameter.setText("auto")
    widget.model.insertItem(0, "/no/such/model.onnx")
    widget.model.setCurrentIndex(0)
    widget.run()
    wait(lambda: widget.start.isEnabled())
    assert "/no/such/model.onnx" in widget.status.text()
    assert widget.status.text().count("\n") == 0


def test_a_folder_of_results_opens_by_the_plugin(viewer, picture, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture)
    segment(tmp_path / "a.tif", output=tmp_path / "out", pixel_size=0.5)
    opened = viewer.open(str(tmp_path / "out"), plugin="cellseg")
    assert [layer.name for layer in opened] == ["a.tif", "a.tif labels", "a.tif cells", "a.tif outlines"]
    assert np.array_equal(np.asarray(opened[0].data), picture)
    assert viewer.layers["a.tif labels"].features["score"].size == 20
    keep(viewer, "napari_results")

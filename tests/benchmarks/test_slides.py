"""The generator of slides: what it says is there is there, and the same each time."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "slides.py"


def make(folder, *arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "options", "dtype", "channels"),
    [
        ("fluorescence", [], np.uint8, 1),
        ("fluorescence", ["--dtype", "uint16", "--compression", "zlib"], np.uint16, 1),
        ("stained", ["--compression", "jpeg"], np.uint8, 3),
    ],
)
def test_picture_and_labels(tmp_path, kind, options, dtype, channels):
    arguments = [
        "--kind",
        kind,
        "--size",
        "700x900",
        "--cells",
        "250",
        "a.tif",
        "--labels",
        "l.tif",
        *options,
    ]
    done = make(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "700×900 pixels, 250 cells" in done.stdout
    picture, labels = (tifffile.imread(tmp_path / name) for name in ("a.tif", "l.tif"))
    assert picture.dtype == dtype
    assert picture.shape == ((700, 900) if channels == 1 else (700, 900, 3))
    assert labels.shape == (700, 900)
    # Every cell is there in one piece, and differs from the ground around.
    assert set(np.unique(labels)) == set(range(251))
    brightness = picture if channels == 1 else 255 - picture.mean(axis=2)
    ground = np.median(brightness[labels == 0])
    for label in range(1, 251):
        own = (labels == label).astype(np.uint8)
        assert cv2.connectedComponents(own, connectivity=8)[0] == 2
        assert np.median(brightness[own > 0]) > ground
    first = (tmp_path / "a.tif").read_bytes()
    make(tmp_path, *arguments)
    assert (tmp_path / "a.tif").read_bytes() == first
    make(tmp_path, *arguments, "--seed", "1")
    assert (tmp_path / "a.tif").read_bytes() != first


@pytest.mark.parametrize(
    "arguments", [["--size", "big"], ["--size", "0x5"], ["--dtype", "uint16", "--kind", "stained"]]
)
def test_bad_arguments(tmp_path, arguments):
    done = make(tmp_path, "a.tif", *arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert not (tmp_path / "a.tif").exists()

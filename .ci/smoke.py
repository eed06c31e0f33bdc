"""Does an installed cellseg work? For a clean environment that holds a wheel and nothing else of the project.

    python -I .ci/smoke.py

Draws discs, segments them from Python and by the command, scores
the labels against what was drawn, and says with which versions. Fails if anything of that does.
"""

import importlib.metadata
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile

from cellseg.runtime import segment
from cellseg.runtime.kernels import split

COMMANDS = Path(sysconfig.get_path("scripts"))
SIZE = 384


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of bright discs on dark ground, and the label image that is true of it."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint16)
    random = np.random.default_rng(7)
    for i in range(8):
        for j in range(8):
            y, x = 24 + 48 * i + random.integers(-6, 7), 24 + 48 * j + random.integers(-6, 7)
            labels[(rows - y) ** 2 + (columns - x) ** 2 < random.integers(7, 11) ** 2] = 1 + i * 8 + j
    picture = np.where(labels > 0, 170.0, 20.0) + random.normal(0, 6, labels.shape)
    return cv2.GaussianBlur(picture, (0, 0), 1.2).clip(0, 255).astype(np.uint8), labels


def run(command: str, *arguments: str | Path) -> str:
    """Run one of the installed commands and return what it printed."""
    found = subprocess.run(
        [COMMANDS / command, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if found.returncode:
        sys.exit(f"{command} failed with {found.returncode}:\n{found.stdout}{found.stderr}")
    return found.stdout


def main() -> None:
    """Draw, segment, score, report."""
    picture, truth = draw()
    expected = int(truth.max())
    count = int(segment(picture).labels.max())
    assert abs(count - expected) <= 3, f"segment() found {count} of {expected} discs"

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images, labels = folder / "image", folder / "label"
        images.mkdir()
        labels.mkdir()
        tifffile.imwrite(images / "disc.tif", picture, compression="zlib", tile=(128, 128))
        cv2.imwrite(str(images / "picture.png"), picture)
        for name in ("disc", "picture"):
            cv2.imwrite(str(labels / f"{name}.png"), truth)
        run("cellseg-infer", images, "-o", folder / "out", "--csv", "--probabilities")
        for name in ("disc", "picture"):
            rows = len((folder / "out" / name / "cells.csv").read_text().splitlines()) - 1
            assert rows == count, f"{name}: {rows} rows in the table, {count} cells from Python"
        run("cellseg-eval", folder)

    kernel = Path(split.__file__).name
    stable = not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert "abi3" in kernel or not stable or sys.platform == "win32", f"{kernel} is not of the stable ABI"
    names = ("cellseg", "numpy", "openvino", "pyarrow", "pydantic", "tifffile", "zarr")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"Python {sys.version.split()[0]}: {count} of {expected} discs; {kernel}; {versions}")


if __name__ == "__main__":
    main()

"""Pictures, and what one process makes of them."""

import hashlib

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.runtime.cluster.many import segment_many


def digest(folder):
    """Return a digest of every file of a result but its record, its report and its pictures."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if (path.is_file() and path.suffix not in (".json", ".html", ".png")) or path.name == "zarr.json"
    }


@pytest.fixture(scope="session")
def hashes():
    return digest


def draw_images(folder, count):
    """Write pictures of discs; return the folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        picture = np.full((300, 340), 8, np.uint8)
        for _ in range(25):
            x, y = random.integers(10, 290, 2)
            cv2.circle(picture, (int(x), int(y)), int(random.integers(4, 12)), 220, -1)
        tifffile.imwrite(folder / f"image{number}.tif", picture)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), 5)


@pytest.fixture(scope="session")
def alone(images, bright_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone")
    outcomes = list(segment_many([images], bright_model, output=output))
    assert [outcome.error for outcome in outcomes] == [None] * 5
    return {folder.name: digest(folder) for folder in sorted(output.iterdir())}

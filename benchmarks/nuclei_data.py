"""What the default model learns from and is no mere download: see train/configs/nuclei.yml.

    python benchmarks/nuclei_data.py narrow DeepLIIF/label --by 2 --out datasets/tissue/train/label
    python benchmarks/nuclei_data.py sections CMU-1-Small-Region.svs ROI_1.png ROI_7.png ROI_127.png \
        --engine nuclei.onnx --out datasets/sections/train

``narrow`` draws outlines in that lie some pixels outside of the nuclei. ``sections`` makes tiles with partial
labels of pictures that nobody has annotated: a nucleus is what a model is sure of, ground is what it is sure
is none, glass, whatever is pale in red light (eosin, collagen), and areas that were looked at and
hold no nucleus; of all else nothing is known (:data:`IGNORED`, the configuration's ``ignore_label``). What
is learned from them is the ground. Look at the overlays that are written next to the tiles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from cellseg.runtime import segment
from cellseg.runtime.evaluation.folders import LabelFolder
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide

#: Label of pixels of which nothing is known.
IGNORED = 65535
#: Edge of a tile, pixels.
EDGE = 512
#: A nucleus has at least this score, and an area and a mean brightness in red light within these.
SURE, AREAS, DARK = 0.85, (40, 1500), {"stained": 150, "immunostained": 190}
#: Near what has this score nothing is ground.
DOUBTFUL = 0.3
#: Ground: a byte of the mask plane below, a brightness in all colours above, in red light above (H&E only).
UNSEEN, GLASS, PALE = 25, 205, 172
#: Horn and torn collagen without a nucleus, looked at by eye: polygons of x, y by the picture's name.
EMPTY = {
    "CMU-1-Small-Region": (
        "1435,950 1580,905 1620,930 1620,1080 1570,1180 1600,1280 1570,1410 1660,1350 1740,1305 1790,1330 "
        "1810,1390 1805,1435 1670,1475 1570,1540 1500,1620 1450,1700 1390,1790 1340,1845 1300,1810 1210,1710 "
        "1185,1630 1210,1530 1240,1420 1260,1320 1290,1230 1350,1170 1390,1100 1420,1000",
        "1640,930 2030,970 2020,1150 1790,1150 1650,1090",
    )
}

FOLDER = click.Path(path_type=Path)


@click.group()
def main() -> None:
    """Prepare what the default model learns from."""


@main.command()
@click.argument("labels", type=FOLDER)
@click.option("--by", type=click.IntRange(1), default=2, show_default=True, help="Pixels.")
@click.option("--out", type=FOLDER, required=True)
def narrow(labels: Path, by: int, out: Path) -> None:
    """Take the outermost pixels of each cell of label images away."""
    out.mkdir(parents=True, exist_ok=True)
    folder = LabelFolder.open(labels)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    for name in folder.files:
        wide = folder.read(name).astype(np.float32)
        core = (cv2.erode(wide, disc) == wide) & (cv2.dilate(wide, disc) == wide)
        cv2.imwrite(str(out / f"{name}.png"), np.where(core, wide, 0).astype(np.uint16))


@main.command()
@click.argument("pictures", nargs=-1, required=True, type=FOLDER)
@click.option("--engine", type=FOLDER, required=True, help="The model that says what it is sure of.")
@click.option("--tissue", default=0.02, show_default=True, help="Least share of a tile that is no glass.")
@click.option("--out", type=FOLDER, required=True)
def sections(pictures: tuple[Path, ...], engine: Path, tissue: float, out: Path) -> None:
    """Cut partly labelled tiles from pictures of sections."""
    for part in ("image", "label"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for path in pictures:
        with open_slide(path) as slide:
            image = slide.read(Region(0, 0, slide.height, slide.width))[..., :3]
        label = partly_labelled(path, image, engine)
        shown = np.where((label == IGNORED)[..., None], image // 2, image)
        known = np.where(label == IGNORED, 0, label).astype(np.float32)
        shown[cv2.morphologyEx(known, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0] = 0, 255, 0
        cv2.imwrite(str(out / f"{path.stem}_overlay.png"), shown[..., ::-1])
        for y, x in starts(*label.shape):
            tile = image[y : y + EDGE, x : x + EDGE]
            if (tile.min(axis=2) < 215).mean() < tissue:
                continue
            name = f"{path.stem}_{y}_{x}.png"
            cv2.imwrite(str(out / "image" / name), tile[..., ::-1])
            cv2.imwrite(str(out / "label" / name), label[y : y + EDGE, x : x + EDGE])


def starts(height: int, width: int) -> list[tuple[int, int]]:
    """Return where tiles begin that cover a picture evenly."""
    rows, columns = (
        np.linspace(0, max(edge - EDGE, 0), -(-edge // EDGE)).astype(int) for edge in (height, width)
    )
    return [(int(y), int(x)) for y in rows for x in columns]


def partly_labelled(path: Path, image: NDArray[np.uint8], engine: Path) -> NDArray[np.uint16]:
    """Return what is known of a picture: nuclei 1…n, ground 0, all else :data:`IGNORED`."""
    with tempfile.TemporaryDirectory() as folder:
        found = segment(path, engine, output=Path(folder) / "o", min_score=0.0, probabilities=True)
        labels = np.asarray(found.labels)
        planes = zarr.open_group(Path(folder) / "o" / "planes.ome.zarr", mode="r")
        mask = np.asarray(planes["0"])[0]
        table = pq.read_table(Path(folder) / "o" / "cells.parquet", columns=["label", "score"])
        score = np.zeros(int(labels.max()) + 1)
        score[table["label"].to_numpy()] = table["score"].to_numpy()
    stained = path.stem in EMPTY
    red = cv2.GaussianBlur(image[..., 0], (0, 0), 1.5)
    area = np.bincount(labels.ravel(), minlength=len(score))
    mean = np.bincount(labels.ravel(), red.ravel(), len(score)) / np.maximum(area, 1)
    dark = mean < DARK["stained" if stained else "immunostained"]
    sure = ((score >= SURE) & (area > AREAS[0]) & (area < AREAS[1]) & dark)[labels]
    ground = (mask < UNSEEN) & ~_near(score[labels] >= DOUBTFUL, 7)
    ground |= cv2.GaussianBlur(image.min(axis=2), (0, 0), 1.0) > GLASS
    for polygon in EMPTY.get(path.stem, ()):
        corners = np.array([point.split(",") for point in polygon.split()], np.int32)
        area_ = np.zeros(labels.shape, np.uint8)
        cv2.fillPoly(area_, [corners], 1)
        ground |= area_ > 0
        sure &= area_ == 0
    cells = np.where(sure, labels, 0).astype(np.float32)
    core = sure
    if stained:
        ground |= (red > PALE) & ~_near(sure, 5)
    else:  # outlines in DAB are less sure
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        core = sure & (cv2.erode(cells, cross) == cells) & (cv2.dilate(cells, cross) == cells)
    out = np.full(labels.shape, IGNORED, np.uint16)
    out[ground] = 0
    out[sure] = IGNORED
    out[core] = labels[core]
    rim = _near(sure, 5) & ~sure & (score[labels] <= DOUBTFUL)
    out[rim] = 0
    return out


def _near(inside: NDArray[np.bool_], edge: int) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = cv2.dilate(inside.astype(np.uint8), np.ones((edge, edge), np.uint8)) > 0
    return near


if __name__ == "__main__":
    main()

"""Annotations of a slide, drawn in QuPath or corrected in the viewer, become pictures of a data set.

What is annotated as a region is where *every* cell was marked: only there does a pixel without a cell mean
that there is none. Each region becomes one picture and its label image; of what lies in its rectangle but
outside of its outline nothing is known (:data:`.drawing.IGNORED`), and no loss counts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.runtime.common.files import replacing
from cellseg.runtime.errors import DataError, UsageError
from cellseg.runtime.geometry.geojson import Feature, Rings, read_features
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import SlideReader, open_slide
from cellseg.runtime.readers.open import SlideOptions

from .drawing import draw, shared_box

#: With fewer cells than this in all, there is little to learn.
FEW_CELLS = 30
#: More than this part of the cells' pixels claimed twice is no slip of the hand.
MUCH_OVERLAP = 0.2
#: Pixels of one region at most, and on each edge at least.
LARGEST, SMALLEST_EDGE = 1 << 26, 32
#: Regions at most, and how often cells' rectangles may cover one: thousands of cells as large as their region
#: would be drawn for hours, only to be told that they overlap.
MOST_REGIONS, MOST_LAYERS = 10_000, 50


@dataclass
class Imported:
    """What was written."""

    #: Pictures, for training and for validation.
    train: list[Path] = field(default_factory=list)
    val: list[Path] = field(default_factory=list)
    cells: int = 0
    #: What the user should look at, one line each.
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Area:
    """A region: its rectangle, its outline where that is another, and its name."""

    box: Region
    outline: Rings | None
    name: str


def import_annotations(
    slide: Path,
    annotations: Path,
    data_set: Path,
    *,
    regions: str | None = None,
    nuclei: bool = True,
    val: float = 0.2,
    overwrite: bool = False,
    reading: SlideOptions | None = None,
) -> Imported:
    """Cut the annotated regions out of a slide.

    Parameters
    ----------
    slide
        The image, in any format that is read.
    annotations
        GeoJSON in full-resolution pixels, as QuPath and ``cellseg-view`` write it; also ``.gz``. Detections
        and cells are cells; annotations are regions where they are rectangles, or named or classified as
        `regions`, and cells otherwise. Without any region, the rectangle around all cells is one.
    data_set
        Folder to write ``train/`` and ``val/`` into; pictures of other slides may lie there.
    regions
        Name or class of the annotations that are regions, whatever their outline.
    nuclei
        Of a QuPath cell take the nucleus, where it has one, and not the cell around it.
    val
        Share of the regions that goes to ``val/``, evenly over all; a single region is cut in two.
    overwrite
        Replace pictures that are there.
    reading
        Which part of the slide, as for :func:`~cellseg.runtime.readers.open_slide`.

    Returns
    -------
    Imported

    Raises
    ------
    UsageError
        The annotations cannot be read or hold no cell or no such region, or a picture exists already.
    DataError
        They lie outside of the slide, or overlap far too much.
    """
    if not 0 <= val < 1:
        raise UsageError(f"--val {val:g}: wanted a share from 0 up to, but not including, 1")
    features = read_features(annotations)
    said = _said(features)
    if not features:
        raise UsageError(f"{annotations}: holds no polygon; annotate cells and export them as GeoJSON")
    done = Imported()
    with open_slide(slide, **(reading or {})) as reader:
        _check_slide(said, reader, annotations, done)
        areas, cells = _sort(features, regions, nuclei, annotations, empty="cells" in said)
        _check_place(areas, cells, reader, annotations)
        if cells:
            Polygons(cells).check_work(str(annotations), reader.height, reader.width)
        done.notes += _shared(areas)
        if not areas:
            areas = [_Area(_around(cells, reader), None, "")]
            done.notes.append(
                "no region was annotated: all cells within the rectangle around them are taken to be marked; "
                "draw a rectangle where every cell is, or name one with --regions"
            )
        if len(areas) == 1 and val:
            areas = _halved(areas[0], val)
        splits = [_split(number, len(areas), val) for number in range(len(areas))]
        places = [
            _place(data_set, split, _stem(slide), area) for split, area in zip(splits, areas, strict=True)
        ]
        _check_free([path for pair in places for path in pair], overwrite)
        drawn = _draw_all(areas, cells, annotations, done)
        for area, split, (picture, label), png in zip(areas, splits, places, drawn, strict=True):
            # The label image comes first: a picture without one is what training complains of by name.
            with replacing(label) as temporary:
                temporary.write_bytes(png)
            with replacing(picture) as temporary:
                _write(temporary, reader.read(area.box))
            (done.val if split == "val" else done.train).append(picture)
    if done.cells < FEW_CELLS:
        done.notes.append(f"only {done.cells} cells: {FEW_CELLS} or more, in several fields, teach more")
    if val and not done.val:
        done.notes.append("the only region is too small to be cut: annotate another to validate on")
    return done


def _draw_all(areas: list[_Area], cells: list[Rings], path: Path, done: Imported) -> list[bytes]:
    """Return the label image of each region as PNG; count cells, and note what looks wrong."""
    drawn, claimed, twice = [], 0, 0
    low, high = (
        np.array([fold(rings[0], axis=0) for rings in cells]).reshape(-1, 2) for fold in (np.min, np.max)
    )
    for area in areas:
        first, last = (area.box.x, area.box.y), (area.box.x1, area.box.y1)
        size = np.minimum(high, last) - np.maximum(low, first)
        near = np.flatnonzero((size > -1).all(axis=1))
        covered = float(np.prod(np.maximum(size[near], 1), axis=1).sum())
        if covered > MOST_LAYERS * max(area.box.area, 1 << 16):
            raise DataError(
                f"{path}: the {len(near):,} cells of region {area.name or area.box} cover it "
                f"{covered / area.box.area:,.0f} times; are regions among the cells (name them with "
                "--regions)?"
            )
        labels, count, overlap = draw([cells[number] for number in near.tolist()], area.box, area.outline)
        claimed, twice, done.cells = claimed + int((labels > 0).sum()), twice + overlap, done.cells + count
        drawn.append(bytes(cv2.imencode(".png", labels)[1]))
        if not count:
            done.notes.append(
                f"region {area.name or area.box} holds no cell: it teaches what none looks like"
            )
    if twice > MUCH_OVERLAP * max(claimed, 1):
        raise DataError(
            f"{path}: {twice / claimed:.0%} of the cells' pixels belong to several of them; are regions "
            "among the cells (name them with --regions), or cells marked twice?"
        )
    if twice:
        done.notes.append(f"{twice:,} pixels belong to several cells: they went to the smallest")
    return drawn


def _sort(
    features: list[Feature], regions: str | None, nuclei: bool, path: Path, *, empty: bool
) -> tuple[list[_Area], list[Rings]]:
    """Return the regions and the cells among the features."""
    areas: list[_Area] = []
    cells: list[Rings] = []
    for feature in features:
        polygons = [rings for rings in feature.polygons if rings]
        detected = feature.kind in ("detection", "cell")
        named = regions is not None and regions.casefold() in (
            feature.name.casefold(),
            feature.classification.casefold(),
        )
        if not detected and (
            named or (regions is None and len(polygons) == 1 and _is_rectangle(polygons[0]))
        ):
            areas += [_area(rings, feature.name or feature.classification) for rings in polygons]
        elif feature.kind != "tile":
            cells += [rings for rings in feature.nucleus if rings] if nuclei and feature.nucleus else polygons
    if regions is not None and not areas:
        said = sorted({text for each in features for text in (each.name, each.classification) if text})
        raise UsageError(
            f"{path}: no annotation is named '{regions}'; names there: {', '.join(said[:12]) or 'none'}"
        )
    if not cells and not (areas and empty):
        raise UsageError(f"{path}: holds {len(areas)} regions and no cell; export the cells with them")
    return areas, cells


def _area(rings: Rings, name: str) -> _Area:
    (x0, y0), (x1, y1) = np.floor(rings[0].min(axis=0)).astype(int), np.ceil(rings[0].max(axis=0)).astype(int)
    box = Region(int(y0), int(x0), int(y1 - y0), int(x1 - x0))
    return _Area(box, None if _is_rectangle(rings) else rings, name)


def _is_rectangle(rings: Rings) -> bool:
    """Whether a polygon is a rectangle along the axes, and larger than any cell is drawn by two clicks."""
    ring = rings[0]
    corners = ring[:-1] if len(ring) > 4 and (ring[0] == ring[-1]).all() else ring
    edges = np.roll(corners, -1, axis=0) - corners
    size = np.ptp(corners, axis=0)
    return (
        len(rings) == 1
        and len(corners) == 4
        and bool((np.abs(edges).min(axis=1) < 1e-6).all() and size.min() >= SMALLEST_EDGE)
    )


def _said(features: list[Feature]) -> dict[str, str]:
    """Return what ``cellseg-view`` says of a field that it saved: image, size, number of cells."""
    return next((each.metadata for each in features if each.kind == "annotation" and each.metadata), {})


def _check_slide(said: dict[str, str], reader: SlideReader, path: Path, done: Imported) -> None:
    """Refuse a field of a slide of another size; note another name, which may be the same slide."""
    size = f"{reader.width}×{reader.height}"
    if said.get("size", size) != size:
        raise DataError(
            f"{path}: was saved from {said.get('image', 'a slide')} of {said['size']} pixels, and "
            f"{reader.path.name} has {size}: it is another slide"
        )
    if said.get("image", reader.path.name) != reader.path.name:
        done.notes.append(f"the annotations say that they are of {said['image']}, not {reader.path.name}")


def _shared(areas: list[_Area]) -> list[str]:
    """Return a note where two regions share pixels: one may train, and the other validate."""
    boxes = np.array([(area.box.y, area.box.x, area.box.y1, area.box.x1) for area in areas]).reshape(-1, 4)
    found = []
    for number, (y, x, y1, x1) in enumerate(boxes):
        before = boxes[:number]
        meet = (before[:, 0] < y1) & (y < before[:, 2]) & (before[:, 1] < x1) & (x < before[:, 3])
        found += [(areas[at], areas[number]) for at in np.flatnonzero(meet)[:1]]
    if not found:
        return []
    one, other = (area.name or area.box for area in found[0])
    more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
    return [f"regions {one} and {other} overlap{more}: what they share counts twice"]


def _check_place(areas: list[_Area], cells: list[Rings], reader: SlideReader, path: Path) -> None:
    """Refuse annotations of another slide, and regions that cannot be cut."""
    if len(areas) > MOST_REGIONS:
        raise DataError(f"{path}: holds {len(areas):,} regions; at most {MOST_REGIONS:,} are cut out at once")
    for area in areas:
        if not (
            area.box.y >= 0
            and area.box.x >= 0
            and area.box.y1 <= reader.height
            and area.box.x1 <= reader.width
        ):
            raise DataError(
                f"{path}: region {area.name or area.box} does not lie in {reader.path.name} "
                f"({reader.height}×{reader.width} pixels); are they annotations of another "
                "slide, or not in full-resolution pixels?"
            )
        if min(area.box.height, area.box.width) < SMALLEST_EDGE or area.box.height * area.box.width > LARGEST:
            raise DataError(
                f"{path}: region {area.name or area.box} has {area.box.height}×{area.box.width} pixels; "
                f"wanted edges of {SMALLEST_EDGE} at least, and {LARGEST:,} pixels at most"
            )
    if not cells:
        return
    outer = np.concatenate([rings[0] for rings in cells])
    outside = (outer < 0).any(axis=1) | (outer[:, 0] > reader.width) | (outer[:, 1] > reader.height)
    if outside.mean() > 0.01:
        raise DataError(
            f"{path}: {outside.mean():.0%} of the cells' corners lie outside of {reader.path.name} "
            f"({reader.height}×{reader.width} pixels); are they annotations of another slide?"
        )
    for area in areas:
        if all(shared_box(rings, area.box) is None for rings in cells) and len(areas) == 1:
            raise DataError(f"{path}: the only region holds no cell; are they annotations of one slide?")


def _around(cells: list[Rings], reader: SlideReader) -> Region:
    outer = np.concatenate([rings[0] for rings in cells])
    x0, y0 = np.maximum(np.floor(outer.min(axis=0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(outer.max(axis=0)).astype(int), (reader.width, reader.height))
    if (y1 - y0) * (x1 - x0) > LARGEST:
        raise UsageError(
            f"the cells lie on {y1 - y0}×{x1 - x0} pixels, too many for one picture; draw rectangles where "
            "every cell is marked"
        )
    return Region(int(y0), int(x0), int(y1 - y0), int(x1 - x0))


def _halved(area: _Area, val: float) -> list[_Area]:
    """Cut the only region along its longer edge into a part to train on and one to validate on."""
    box = area.box
    along = max(box.height, box.width)
    first = min(max(round(along * (1 - val)), SMALLEST_EDGE), along - SMALLEST_EDGE)
    if first < SMALLEST_EDGE:
        return [area]
    if box.height >= box.width:
        parts = Region(box.y, box.x, first, box.width), Region(box.y + first, box.x, along - first, box.width)
    else:
        parts = (
            Region(box.y, box.x, box.height, first),
            Region(box.y, box.x + first, box.height, along - first),
        )
    return [_Area(part, area.outline, area.name) for part in parts]


def _split(number: int, count: int, val: float) -> str:
    """Return where the region of a number goes: to validation, evenly over all."""
    if count < 2 or not val:
        return "train"
    wanted = min(max(1, round(count * val)), count - 1)
    return "val" if (number + 1) * wanted // count > number * wanted // count else "train"


def _stem(slide: Path) -> str:
    """Return the slide's name as the beginning of file names."""
    name = slide.name.removesuffix(slide.suffix).removesuffix(".ome")
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "slide"


def _place(data_set: Path, split: str, stem: str, area: _Area) -> tuple[Path, Path]:
    name = f"{stem}_{area.box.y}_{area.box.x}"
    return data_set / split / "image" / f"{name}.tif", data_set / split / "label" / f"{name}.png"


def _check_free(paths: list[Path], overwrite: bool) -> None:
    known = [path for path in paths if path.exists()]
    if known and not overwrite:
        raise UsageError(
            f"{known[0]}: exists already; replace it with --overwrite, or choose another folder with -o"
        )


def _write(path: Path, pixels: NDArray[Any]) -> None:
    """Write raw pixels, whatever their type and channels, as other programs read them too."""
    colour = pixels.shape[2] == 3 and pixels.dtype == np.uint8
    array = pixels if colour else np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(
        path, array if array.shape[0] > 1 or colour else array[0],
        photometric="rgb" if colour else "minisblack", compression="zlib",
    )  # fmt: skip

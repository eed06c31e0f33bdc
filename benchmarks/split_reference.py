"""Our splitter against scikit-image's watershed from the same seeds, on images whose cells are known.

    python benchmarks/split_reference.py datasets/nuclei/val [--engine nuclei.onnx] [--planes planes.npz]

The model runs once over each image of DIR/image. Its planes go through (a) the splitter that the
runtime uses, and (b) ``skimage.segmentation.watershed`` on the same landscape in floating point:
mask and boundary joined, smoothed by SciPy, holes filled and small cells dropped by scikit-image's own
functions. The seeds of (b) are the peaks of the cells of (a), so that what is compared is the flooding,
the fixed-point landscape and the rules of sizes, not the choice of seeds. Learned rules for joining and
scoring cells are left out on both sides: scikit-image has no such thing. AP is pooled over the images.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

from cellseg.runtime.backends import open_backend
from cellseg.runtime.evaluation.folders import PICTURES, LabelFolder, check_partners, list_files
from cellseg.runtime.evaluation.metrics import score, summarise
from cellseg.runtime.instances import split_planes
from cellseg.runtime.instances.rules import DISTANCE_ALONE
from cellseg.runtime.model.spec import ModelSpec
from cellseg.runtime.tuning.cases import predict_planes

FIGURES = ("ap50", "ap75", "ap90", "pq")


def inside_of(mask: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.bool_]:
    """Return the foreground with small holes filled, shape (H, W)."""
    # Background is joined by edges only, as components are joined by corners too.
    filled: NDArray[np.bool_] = remove_small_holes(
        mask >= spec.split.mask_threshold, max_size=spec.split.max_hole_area, connectivity=1
    )
    return filled


def landscape(planes: NDArray[np.uint8], inside: NDArray[np.bool_], spec: ModelSpec) -> NDArray[np.float64]:
    """Return the landscape of ``SplitSettings`` in floating point, (H, W)."""
    split, names = spec.split, spec.head_names
    level = np.zeros(inside.shape)
    steepness = DISTANCE_ALONE
    if "boundary" in names:
        level += planes[0] * (1 - split.boundary_weight * planes[names.index("boundary")] / 255)
        steepness = split.distance_weight
    if steepness:
        level += steepness * ndimage.distance_transform_edt(inside)
    level = np.minimum(level, 255) * inside
    return ndimage.gaussian_filter(level, split.smoothing, mode="constant", truncate=3) * inside


def scikit_split(planes: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.int32]:
    """Split by scikit-image from the seeds that our splitter has found, shape (H, W)."""
    inside = inside_of(planes[0], spec)
    level = landscape(planes, inside, spec)
    every = spec.split.model_copy(update={"min_area": 1})
    ours = split_planes(planes, spec.heads, every)
    markers = np.zeros(ours.shape, np.int32)
    if ours.any():
        numbers = np.arange(1, ours.max() + 1)
        peaks = ndimage.maximum_position(level, ours, numbers)
        markers[tuple(np.array(peaks).T)] = numbers
    cells = watershed(-level, markers, mask=inside)
    kept: NDArray[np.int32] = remove_small_objects(cells, max_size=spec.split.min_area - 1)
    return kept


def planes_of(
    files: dict[str, Path], engine: Path | None, device: str, cache: Path | None
) -> tuple[dict[str, NDArray[np.uint8]], ModelSpec]:
    """Return each picture's planes and the model's specification, from ``cache`` where it is there."""
    if cache is None or not cache.is_file():
        with open_backend(engine, device) as backend:
            planes, spec = dict(predict_planes(backend, files)), backend.spec
        if cache is not None:
            np.savez_compressed(cache, **planes)  # type: ignore[arg-type]  # names of arrays
        return planes, spec
    with open_backend(engine, device) as backend, np.load(cache) as stored:
        if set(stored) != set(files):
            raise click.UsageError(f"--planes {cache} is of other images; delete it or name another file")
        return {stem: stored[stem] for stem in files}, backend.spec


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Path(path_type=Path), help="Model file; packaged by default.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu or cuda:N.")
@click.option(
    "--planes", "cache", type=click.Path(path_type=Path), help="Keep the model's planes here (.npz)."
)
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures.")
def main(folder: Path, engine: Path | None, device: str, cache: Path | None, target: Path | None) -> None:
    """Compare both on FOLDER/image and FOLDER/label."""
    truths = LabelFolder.open(folder / "label")
    files = list_files(folder / "image", PICTURES, "pictures")
    check_partners(truths.files, files, folder / "image")
    planes, spec = planes_of(files, engine, device, cache)
    bare = spec.split.model_copy(update={"join": None, "score": None})
    spec = spec.model_copy(update={"split": bare})
    ours, theirs, same = [], [], []
    for stem in files:
        truth = truths.read(stem)
        found = split_planes(planes[stem], spec.heads, spec.split)
        usual = scikit_split(planes[stem], spec)
        ours.append(score(truth, found))
        theirs.append(score(truth, usual))
        same.append(score(usual, found))
    figures = {name: summarise(each) for name, each in (("ours", ours), ("scikit-image", theirs))}
    result = {
        "images": len(files),
        "model": spec.name,
        **{name: {key: figures[name][key] for key in FIGURES} for name in figures},
        "difference": {key: figures["ours"][key] - figures["scikit-image"][key] for key in FIGURES},
        # How well the two agree, whatever is true.
        "agreement": {key: summarise(same)[key] for key in FIGURES},
    }
    for name in ("ours", "scikit-image", "difference", "agreement"):
        row = "  ".join(f"{key} {result[name][key]:+.4f}" for key in FIGURES)  # type: ignore[index]
        click.echo(f"{name:14} {row}")
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The baseline to beat: Otsu's threshold and a distance-transform watershed, with scikit-image.

    python benchmarks/otsu_baseline.py datasets/nuclei/val --out /tmp/otsu
    cellseg-eval datasets/nuclei/val --labels /tmp/otsu --groups index.csv --by modality

It writes 16-bit label images for the pictures in DIR/image. Nothing is tuned: cells are the side of
the threshold that holds less of the picture, seeds are the peaks of the smoothed distance at least
``--distance`` pixels apart.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed


def segment(image: NDArray[np.uint8], distance: int, min_area: int) -> NDArray[np.uint16]:
    """Label the cells of a picture, (H, W) or (H, W, 3)."""
    grey = gaussian(rgb2gray(image) if image.ndim == 3 else image / 255.0, 1)
    mask = grey > threshold_otsu(grey)
    if mask.mean() > 0.5:  # bright background: stained tissue, brightfield
        mask = ~mask
    mask = remove_small_objects(ndimage.binary_fill_holes(mask), max_size=min_area)
    depth = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(depth, min_distance=distance, labels=mask.astype(int), exclude_border=False)
    seeds = np.zeros(mask.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, seeds, mask=mask), np.uint16)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the label images.")
@click.option("--distance", default=5, show_default=True, help="Least distance of two seeds in pixels.")
@click.option("--min-area", default=20, show_default=True, help="Drop cells of up to this many pixels.")
def main(folder: Path, out: Path, distance: int, min_area: int) -> None:
    """Segment FOLDER/image the classical way."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / "image").glob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise click.ClickException(f"{path}: cannot be read as a picture; replace it")
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
        cv2.imwrite(str(out / path.name), segment(image, distance, min_area))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

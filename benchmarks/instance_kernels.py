"""Cases of labelling, splitting and measuring, against OpenCV, SciPy, cc3d and scikit-image."""

from __future__ import annotations

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rivals import Case
from scene import Scene
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels, watershed

from cellseg.runtime.instances import InstanceStream, Strip
from cellseg.runtime.intensity.stains import Stains
from cellseg.runtime.kernels.expand import expand
from cellseg.runtime.kernels.measure import measure_labels
from cellseg.runtime.kernels.paint import label_image
from cellseg.runtime.model.spec import Head, JoinRule, ScoreRule, SplitSettings

HEADS = (Head(name="mask"), Head(name="boundary"))
#: With rules as a tuned model has them, that cost what they cost there and change nothing.
SETTINGS = SplitSettings(
    join=JoinRule(
        constant=-99.0,
        contact={"mask": 1.0, "boundary": -1.0},
        inside={"mask": 1.0, "boundary": -1.0},
        smaller=0.1,
        larger=0.1,
        length=0.1,
    ),
    score=ScoreRule(constant=0.0, inside={"mask": 1.0, "boundary": -1.0}, area=0.1, minimum=0.0),
)
PROPERTIES = (
    "area", "bbox", "centroid", "eccentricity", "intensity_mean", "perimeter", "solidity",
)  # fmt: skip


def stream(scene: Scene, *, image: bool, rows: int = 256) -> list[Strip]:
    """Split a scene in bands on one core, as the pipeline does."""
    height, width = scene.planes.shape[1:]
    channels = scene.image.shape[2] if image else 0
    strips: list[Strip] = []
    with InstanceStream(height, width, HEADS, SETTINGS, image_channels=channels) as instances:
        for y in range(0, height, rows):
            band = slice(y, y + rows)
            strips += instances.push(scene.planes[:, band], scene.image[band] if image else None)
        strips += instances.finish()
    return strips


def scikit_split(scene: Scene) -> NDArray[np.int32]:
    """Split as one does with scikit-image: smooth, peaks, watershed."""
    mask, boundary = scene.planes
    inside = mask >= SETTINGS.mask_threshold
    levels = cv2.GaussianBlur(mask * (1 - boundary / np.float32(255)), (0, 0), SETTINGS.smoothing)
    peaks = peak_local_max(levels, min_distance=4, labels=inside.astype(np.int32), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: NDArray[np.int32] = watershed(-levels, markers, mask=inside)
    return labels


def cell_cases(scene: Scene, labels: NDArray[np.int32], count: int, rows: NDArray[np.uintp]) -> list[Case]:
    """Optical densities, and nuclei grown into cells."""
    size = len(labels)
    table, grown = Stains.known("hdab").table(np.dtype(np.uint8)), np.empty_like(labels)
    return [
        Case(
            "the same with optical densities of 2 stains",
            lambda: measure_labels(labels, count, rows, 1, 3, table, 2),
            {
                "without": lambda: measure_labels(labels, count, rows, 1, 3),
                "scikit-image rgb2hed alone": lambda: rgb2hed(scene.image),
            },
        ),
        Case(
            "grow nuclei by 10 pixels",
            lambda: expand(labels, 0, size, 0, size, 100, grown),
            {
                "scikit-image expand_labels": lambda: expand_labels(labels, 10),
                "OpenCV distanceTransform, no labels": lambda: cv2.distanceTransform(
                    (labels == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
                ),
            },
        ),
    ]


def instance_cases(size: int) -> list[Case]:
    """Label, split, measure, and all of them together with outlines."""
    scene = Scene.make(size)
    binary = (scene.planes[0] >= SETTINGS.mask_threshold).astype(np.uint8)
    strips = stream(scene, image=False)
    labels = np.concatenate([strip.labels for strip in strips])
    count = sum(len(strip.cells) for strip in strips)
    click.echo(
        f"{size} × {size} pixels, {binary.mean():.1%} foreground, "
        f"{1e6 * count / scene.pixels:.0f} cells a megapixel"
    )
    rows = np.uintp(scene.image.ctypes.data) + np.arange(size, dtype=np.uintp) * np.uintp(3 * size)

    def scikit_measure(cells: NDArray[np.int32] = labels) -> object:
        return regionprops_table(cells, scene.image, properties=PROPERTIES)

    def cc3d_label() -> object:
        import cc3d

        return cc3d.connected_components(binary, connectivity=8)

    def usual_path() -> object:
        cv2.distanceTransform(binary, cv2.DIST_L2, 5)
        return scikit_measure(scikit_split(scene))

    return [
        Case(
            "label",
            lambda: label_image(binary),
            {
                "OpenCV connectedComponents": lambda: cv2.connectedComponents(binary, connectivity=8),
                "scipy label": lambda: ndimage.label(binary, np.ones((3, 3))),
                "cc3d": cc3d_label,
            },
        ),
        Case(
            "measure with outlines",
            lambda: measure_labels(labels, count, rows, 1, 3),
            {"scikit-image regionprops_table, no outlines": scikit_measure},
        ),
        *cell_cases(scene, labels, count, rows),
        Case(
            "label + split + measure with outlines",
            lambda: stream(scene, image=False),
            {"scikit-image peak_local_max + watershed, no measures": lambda: scikit_split(scene)},
        ),
        Case(
            "the same with 3 image channels",
            lambda: stream(scene, image=True),
            {"OpenCV + scikit-image, no outlines": usual_path},
        ),
    ]

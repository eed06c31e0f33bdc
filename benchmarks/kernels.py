"""Speed of each kernel against what one would call instead, on the same input, in one run.

    python benchmarks/kernels.py [--size 2048] [--json kernels.json] [NAME ...]

Every call runs on one core; rates are pixels per second of processor time, so that other programs
count as little as possible, and the best of several rounds in turn.

*memory copy* beside a tile kernel is a copy that moves as many bytes, read and written together, as the
kernel does: 16-bit pixels become bytes by reading two and writing one, as much as copying one and a
half. So the ratio is that of memory bandwidths. Rivals that are not installed are named and left out.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import json  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy import ndimage  # noqa: E402
from skimage.feature import peak_local_max  # noqa: E402
from skimage.measure import regionprops_table  # noqa: E402
from skimage.segmentation import watershed  # noqa: E402

from cellseg.runtime.geometry.tiling import TileGrid  # noqa: E402
from cellseg.runtime.instances import InstanceStream, Strip  # noqa: E402
from cellseg.runtime.intensity.channels import ChannelChoice  # noqa: E402
from cellseg.runtime.intensity.normalization import Normalization  # noqa: E402
from cellseg.runtime.kernels.measure import measure_labels  # noqa: E402
from cellseg.runtime.kernels.paint import label_image  # noqa: E402
from cellseg.runtime.model.spec import Head, JoinRule, ScoreRule, SplitSettings  # noqa: E402
from cellseg.runtime.streaming.bands import BandRows, TileGatherer  # noqa: E402
from cellseg.runtime.streaming.blend import Blender  # noqa: E402
from cellseg.runtime.streaming.stitch import Cores  # noqa: E402


@dataclass(frozen=True)
class Scene:
    """What the kernels work on: planes and an image of nuclei.

    Attributes
    ----------
    planes
        Shape (2, H, W): mask and boundary as a network gives them.
    image
        Shape (H, W, 3), uint8.
    """

    planes: NDArray[np.uint8]
    image: NDArray[np.uint8]

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.planes[0].size

    @classmethod
    def make(cls, size: int, seed: int = 0) -> "Scene":
        """Draw a square scene with 1,000 nuclei a megapixel on 17 % of the area, many touching."""
        rng = np.random.default_rng(seed)
        mask = np.zeros((size, size), np.uint8)
        border = np.zeros((size, size), np.uint8)
        for _ in range(round(size * size / 1000)):
            axes = rng.uniform(5.5, 10.5, 2)
            centre = rng.uniform(0, size, 2)
            shape = (tuple(map(float, centre)), tuple(map(float, 2 * axes)), float(rng.uniform(0, 180)))
            cv2.ellipse(mask, shape, 255, -1)
            cv2.ellipse(border, shape, 0, -1)
            cv2.ellipse(border, shape, 255, 2)
        soft = cv2.GaussianBlur(mask, (0, 0), 1.0)
        edge = cv2.GaussianBlur(border, (0, 0), 0.8)
        noise = rng.normal(0, 6, (size, size))
        planes = np.stack([soft + noise * (soft > 8), edge + noise * (edge > 8)])
        image: NDArray[np.uint8] = np.repeat(soft[..., None], 3, axis=2) // np.array([1, 2, 3], np.uint8)  # type: ignore[assignment]
        return cls(np.clip(planes, 0, 255).astype(np.uint8), image)


@dataclass(frozen=True)
class Case:
    """One kernel and its rivals; ``rivals`` maps a name to a call on the same input."""

    name: str
    ours: Callable[[], object]
    rivals: dict[str, Callable[[], object]] = field(default_factory=dict)

    def installed(self, missing: set[str]) -> "Case":
        """Return the case with those rivals that run here; add the others, and why, to ``missing``."""
        there = {}
        for name, call in self.rivals.items():
            try:
                call()
            except ImportError as error:
                missing.add(f"{name} ({error})")
            else:
                there[name] = call
        return Case(self.name, self.ours, there)


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


#: Tile edge and halo of the tile cases, pixels.
TILE, HALO = 512, 32


def tile_cases(size: int) -> list[Case]:
    """Cut an image into tiles, and put planes of tiles together, against copying as many bytes."""
    grid = TileGrid(size, size, TILE, HALO)
    bands = list(grid)
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 4000, (size, size, 3)).astype(np.uint16)
    batch = np.zeros((grid.n_columns, TILE, TILE, 3), np.uint8)
    planes = rng.integers(0, 256, (grid.n_columns, 3, TILE, TILE)).astype(np.uint8)
    out = np.zeros((3, size, size), np.uint8)

    def cut(image: NDArray[np.generic], pick: tuple[int, ...], mapping: Normalization) -> Callable[[], None]:
        gatherer = TileGatherer(grid, ChannelChoice(pick), mapping)
        sources = [BandRows(band, image[band.rows.y : band.rows.y1], image) for band in bands]

        def run() -> None:
            for source in sources:
                gatherer(source, source.band.tiles, batch)

        return run

    def put_together() -> None:
        for band in bands:
            rows = out.reshape(-1)[: 3 * band.region.height * size].reshape(3, band.region.height, size)
            cores.add(planes, band.tiles, band, rows)

    def copy(read: int, wrote: int) -> Callable[[], None]:
        count = (read + wrote) // 2
        source, target = np.ones(count, np.uint8), np.empty(count, np.uint8)
        return lambda: np.copyto(target, source)

    def slices(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> Callable[[], None]:
        padded = np.pad(image, ((HALO, TILE), (HALO, TILE), (0, 0)), mode="reflect")

        def run() -> None:
            for band in bands:
                for index, tile in enumerate(band.tiles):
                    batch[index] = table[padded[tile.core.y :, tile.core.x :][:TILE, :TILE]]

        return run

    def monai() -> object:
        import torch
        from monai.inferers import sliding_window_inference

        picture = torch.zeros(1, 3, size, size)
        return sliding_window_inference(picture, TILE, 4, lambda x: x, overlap=2 * HALO / TILE)

    narrow = (raw >> 4).astype(np.uint8)
    mapping = Normalization(20, 230, "uint8")
    table = mapping.lookup()
    assert table is not None
    written = len(grid) * TILE * TILE * 3
    blender, cores = Blender(grid, 3, "hann"), Cores(grid)

    def blend() -> None:
        for band in bands:
            rows = blender.rows(band)
            target = out.reshape(-1)[: 3 * rows.area].reshape(3, rows.height, size)
            blender.add(planes, band.tiles, band, target)
            blender.finish(band, target)

    def tiler() -> object:
        from tiler import Merger, Tiler

        cutter = Tiler((3, size, size), (3, TILE, TILE), overlap=2 * HALO, channel_dimension=0)
        merger = Merger(cutter, window="hann")
        for index in range(len(cutter)):
            merger.add(index, planes[index % len(planes)])
        return merger.merge(unpad=True)

    return [
        Case(
            "gather 8-bit RGB",
            cut(narrow, (0, 1, 2), mapping),
            {"memory copy": copy(written, written), "NumPy slices and a lookup": slices(narrow, table)},
        ),
        Case(
            "gather 8-bit grey to RGB",
            cut(narrow[:, :, :1].copy(), (0,), mapping),
            {"memory copy": copy(written // 3, written)},
        ),
        Case(
            "gather 16-bit RGB",
            cut(raw, (0, 1, 2), Normalization(100, 3800, "uint16")),
            {"memory copy": copy(2 * written, written)},
        ),
        Case(
            "gather float RGB",
            cut(raw.astype(np.float32), (0, 1, 2), Normalization(100, 3800, "float32")),
            {"memory copy": copy(4 * written, written)},
        ),
        Case(
            "stitch 3 planes",
            put_together,
            {"memory copy": copy(3 * size * size, 3 * size * size)},
        ),
        Case(
            "blend 3 planes, Hann weights",
            blend,
            {
                "memory copy": copy(written, 3 * size * size),
                "tiler Merger, Hann": tiler,
                "MONAI sliding_window_inference, constant weights, no network": monai,
            },
        ),
    ]


#: Groups of cases by name; each is made from the edge of the scene in pixels.
GROUPS: dict[str, Callable[[int], list[Case]]] = {"instances": instance_cases, "tiles": tile_cases}


def best_seconds(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Run the calls in turn and return the best processor time of each.

    Calls that take longer than a second run in the first two rounds only.
    """
    best = [float("inf")] * len(calls)
    for round_ in range(rounds):
        for index, call in enumerate(calls):
            if round_ > 1 and best[index] > 1:
                continue
            start = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - start)
    return best


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--size", default=2048, show_default=True, help="Edge of the scene in pixels.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the best of them counts.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(names: tuple[str, ...], size: int, rounds: int, json_path: Path | None) -> None:
    """Time the kernels named (groups: instances, tiles), or all."""
    unknown = set(names) - set(GROUPS)
    if unknown:
        raise click.UsageError(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    cv2.setNumThreads(1)
    missing: set[str] = set()
    table = Table("kernel", "Mpx/s", "against", "Mpx/s", "ratio")
    for column in table.columns[1::2]:
        column.justify = "right"
    records = []
    for group in names or GROUPS:
        for made in GROUPS[group](size):
            case = made.installed(missing)
            seconds = best_seconds([case.ours, *case.rivals.values()], rounds)
            rates = [size * size / 1e6 / s for s in seconds]
            record: dict[str, Any] = {"kernel": case.name, "mpx_s": round(rates[0], 1), "rivals": {}}
            for rival, rate in zip(case.rivals, rates[1:], strict=True):
                ratio = rates[0] / rate
                record["rivals"] |= {rival: {"mpx_s": round(rate, 2), "ratio": round(ratio, 2)}}
                table.add_row(case.name, f"{rates[0]:.1f}", rival, f"{rate:.1f}", f"{ratio:.2f}")
            if not case.rivals:
                table.add_row(case.name, f"{rates[0]:.1f}", "", "", "")
            records.append(record)
    Console().print(table)
    for name in sorted(missing):
        click.echo(f"not compared: {name}")
    if json_path is not None:
        result = {"size": size, "machine": platform.processor() or platform.machine(), "cases": records}
        result["missing"] = sorted(missing)
        json_path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

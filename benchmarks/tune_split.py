"""Find the split settings that suit a model best, on images whose cells are known.

    python benchmarks/tune_split.py datasets/nuclei/val --engine nuclei.onnx --trials 300 --json split.json
    python benchmarks/tune_split.py datasets/nuclei/val --groups index.csv --by modality --only fluo

The model runs once over each image of DIR/image, whole and padded by reflection; then settings are
tried on its planes through the same splitter that the runtime uses. The search starts from the
settings in the model, draws half of the trials from a wide bell around them, and then changes one
setting at a time around the best. Its goal is the mean over the groups of (AP50 + AP75 + AP90) / 3,
each pooled over the images of the group and weighted by the square root of their number, so that
neither a frequent kind of picture nor a handful of odd ones decides alone. Equal seeds give equal
results, whatever the number of processes.

Tune on validation images only: the figures printed for them are then optimistic.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.backends import open_backend
from cellseg.runtime.evaluate import Score, score, summarise
from cellseg.runtime.instances import split_planes
from cellseg.runtime.overlap import Labels
from cellseg.runtime.pairs import LabelFolder, check_partners, list_files, read_groups
from cellseg.runtime.preprocess import measure, to_channels
from cellseg.runtime.readers import open_slide
from cellseg.runtime.spec import Head, ModelSpec, SplitSettings
from cellseg.runtime.tiling import Region

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp")
SHOWN = (
    "ap50",
    "ap75",
    "ap90",
    "pq",
    "dice",
    "count_mae",
    "merged",
    "split",
    "missed",
    "inexact",
    "spurious",
)
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Range:
    """Where a setting may lie, and whether it is searched by its logarithm."""

    low: float
    high: float
    whole: bool = True
    logarithmic: bool = False

    def at(self, share: float) -> float:
        """Return the value at ``share`` (0…1, clipped) of the range."""
        share = min(max(share, 0.0), 1.0)
        if self.logarithmic:
            value = np.exp(np.log1p(self.low) + share * (np.log1p(self.high) - np.log1p(self.low))) - 1
        else:
            value = self.low + share * (self.high - self.low)
        return round(float(value)) if self.whole else round(float(value), 3)

    def share(self, value: float) -> float:
        """Return where a value lies in the range; the inverse of :meth:`at`."""
        if self.logarithmic:
            return float((np.log1p(value) - np.log1p(self.low)) / (np.log1p(self.high) - np.log1p(self.low)))
        return (value - self.low) / (self.high - self.low)


RANGES = {
    "mask_threshold": Range(48, 208),
    "boundary_weight": Range(0, 1, whole=False),
    "density_weight": Range(0, 1, whole=False),
    "distance_weight": Range(0, 24, whole=False),
    "smoothing": Range(0, 4, whole=False),
    "persistence": Range(1, 128, logarithmic=True),
    "min_seed_area": Range(1, 100, logarithmic=True),
    "min_area": Range(1, 150, logarithmic=True),
    "max_hole_area": Range(0, 1000, logarithmic=True),
    "min_seed_density": Range(0, 0.9, whole=False),
}
#: Settings that only matter where the model has that head.
NEEDS_HEAD = {"boundary_weight": "boundary", "density_weight": "density", "min_seed_density": "density"}


@dataclass(frozen=True, slots=True)
class Case:
    """One image: what the model saw in it and what is true."""

    group: str
    #: (K, H, W) uint8.
    planes: NDArray[np.uint8]
    truth: Labels


def run_model(
    files: dict[str, Path], engine: Path | None, device: str
) -> tuple[dict[str, NDArray[np.uint8]], ModelSpec]:
    """Return the planes of each picture, uint8 (K, H, W), and the model's specification."""
    planes = {}
    with open_backend(engine, device) as backend:
        spec = backend.spec
        images = {stem: read_bytes(path, spec) for stem, path in files.items()}
        # By size, because each new size is compiled anew.
        for stem, image in sorted(images.items(), key=lambda item: max(item[1].shape)):
            height, width = image.shape[:2]
            edge = max(height, width) + 2 * spec.halo
            edge += -edge % spec.multiple
            after = edge - spec.halo
            pad = ((spec.halo, after - height), (spec.halo, after - width), (0, 0))
            backend.prepare(edge, 1)
            batch = np.ascontiguousarray(np.pad(image, pad, mode="reflect")[None])
            whole = backend.submit(batch).result()[0]
            rows, columns = slice(spec.halo, spec.halo + height), slice(spec.halo, spec.halo + width)
            planes[stem] = whole[:, rows, columns].copy()
        return planes, spec


def read_bytes(path: Path, spec: ModelSpec) -> NDArray[np.uint8]:
    """Read a picture whole and map it to bytes as the runtime does, (H, W, C)."""
    with open_slide(path) as slide:
        image = slide.read(Region(0, 0, slide.height, slide.width))
        if spec.normalization == "percentile":
            image = measure(slide.overview(2048)).apply(image)
    return to_channels(image, spec.channels)


class Trial:
    """Scores settings on the cases; one in each process."""

    cases: list[Case]
    heads: tuple[Head, ...]

    @classmethod
    def prepare(cls, cases: list[Case], heads: tuple[Head, ...]) -> None:
        """Hand over the cases, once for each process."""
        cls.cases, cls.heads = cases, heads

    @classmethod
    def run(cls, settings: SplitSettings) -> Figures:
        """Return the figures of each group."""
        scores: dict[str, list[Score]] = {}
        for case in cls.cases:
            found = split_planes(case.planes, cls.heads, settings)
            scores.setdefault(case.group, []).append(score(case.truth, found))
        return {group: summarise(each) for group, each in sorted(scores.items())}


def goal(figures: Figures) -> float:
    """Return the weighted mean over groups of (AP50 + AP75 + AP90) / 3."""
    each = [(group["ap50"] + group["ap75"] + group["ap90"]) / 3 for group in figures.values()]
    return float(np.average(each, weights=[group["images"] ** 0.5 for group in figures.values()]))


def search(
    start: SplitSettings,
    names: list[str],
    trials: int,
    seed: int,
    run: Callable[[Iterable[SplitSettings]], Iterable[Figures]],
) -> tuple[SplitSettings, Figures]:
    """Search at random, then coordinate by coordinate around the best with shrinking steps."""
    rng = np.random.default_rng(seed)
    tried: dict[str, float] = {}
    best, best_figures = start, next(iter(run([start])))
    click.echo(f"start: {goal(best_figures):.4f}", err=True)

    def attempt(candidates: list[SplitSettings]) -> bool:
        nonlocal best, best_figures
        fresh = {c.model_dump_json(): c for c in candidates if c.model_dump_json() not in tried}
        improved = False
        for candidate, figures in zip(fresh.values(), run(fresh.values()), strict=True):
            tried[candidate.model_dump_json()] = goal(figures)
            if goal(figures) > goal(best_figures):
                best, best_figures, improved = candidate, figures, True
                click.echo(f"trial {len(tried)}: {goal(figures):.4f}  {candidate.model_dump()}", err=True)
        return improved

    draws = rng.normal(0, 0.25, (trials // 2, len(names)))
    attempt([_moved(start, dict(zip(names, draw, strict=True))) for draw in draws])
    step = 0.2
    while len(tried) < trials and step > 0.01:
        improved = False
        for name in rng.permutation(names):
            if len(tried) >= trials:
                break
            improved |= attempt([_moved(best, {name: move * step}) for move in (-1, -0.5, 0.5, 1)])
        step = step if improved else step / 2
    return best, best_figures


def _moved(settings: SplitSettings, moves: dict[str, float]) -> SplitSettings:
    """Move settings by shares of their ranges."""
    values = {
        name: RANGES[name].at(RANGES[name].share(getattr(settings, name)) + move)
        for name, move in moves.items()
    }
    return SplitSettings.model_validate(settings.model_dump() | values)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--engine", type=click.Path(path_type=Path), help="Model; the packaged one by default.")
@click.option("--device", default="auto", show_default=True)
@click.option("--heads", help="Use these planes of the model only: mask,boundary.")
@click.option("--groups", type=click.Path(path_type=Path), help="Table whose first column names images.")
@click.option("--by", help="Column of --groups.")
@click.option("--only", multiple=True, help="Tune on these groups only; all by default. May be repeated.")
@click.option("--trials", default=200, show_default=True, help="Settings to try.")
@click.option("--fix", multiple=True, metavar="NAME", help="Leave this setting as it is. May be repeated.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write settings and figures.")
def main(
    folder: Path,
    engine: Path | None,
    device: str,
    heads: str | None,
    groups: Path | None,
    by: str | None,
    only: tuple[str, ...],
    trials: int,
    fix: tuple[str, ...],
    seed: int,
    jobs: int,
    json_path: Path | None,
) -> None:
    """Print the best split settings for a model as JSON, and what they achieve on DIR."""
    truth = LabelFolder.open(folder / "label")
    files = list_files(folder / "image", PICTURES, "pictures")
    check_partners(truth.files, files, folder / "image")
    group_of = read_groups(groups, by) if groups and by else {}
    wanted = {stem: files[stem] for stem in truth.files if not only or group_of.get(stem) in only}
    if not wanted:
        raise click.UsageError(f"no image belongs to {', '.join(only)}")
    planes, spec = run_model(wanted, engine, device)
    used = [head for head in spec.heads if not heads or head.name in heads.split(",")]
    kept = [spec.heads.index(head) for head in used]
    cases = [Case(group_of.get(stem, "all"), planes[stem][kept], truth.read(stem)) for stem in sorted(wanted)]
    have = {head.name for head in used}
    names = [name for name in RANGES if name not in fix and NEEDS_HEAD.get(name, "mask") in have]
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the engine's threads
    with ProcessPoolExecutor(jobs, spawn, Trial.prepare, (cases, tuple(used))) as pool:
        best, figures = search(spec.split, names, trials, seed, lambda many: pool.map(Trial.run, many))

    for group, each in figures.items():
        click.echo(f"{group}: " + "  ".join(f"{name} {each[name]:.4g}" for name in SHOWN), err=True)
    result = {"split": best.model_dump(), "goal": goal(figures), "figures": figures}
    click.echo(json.dumps(result["split"], indent=1))
    if json_path:
        json_path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Do boundary and density help, and what does the norm cost? The paper's claim, with spread.

    python benchmarks/ablation.py datasets/dsb2018 --out ablation --seeds 3
    python benchmarks/ablation.py datasets/dsb2018 --out ablation --config fast --set iters=4000

Mask alone, with boundary, with density, with both, both with a boundary between touching cells only,
both with group norm, and both with the targets and weights of ``nuclei.yml``: each for every seed, on
the same configuration and the same number of steps.
The last weights count, not the best ones, so that nothing is picked on the images it is measured on.
Two ways of finding cells are scored: from the mask alone, which is the paper's claim that auxiliary
losses improve the shared features, and from all planes that the network has, which is how it is used.
For each the runtime's splitter is tuned anew, by as many trials, on some of the training images, and
learns its rules from them where they help, as ``cellseg-tune`` does.

A run that was interrupted continues where it stopped, and one that is finished is not repeated;
``ablation.json`` in the folder is written anew after each.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cellseg.runtime.cli import common
from cellseg.train.cli import SHIPPED
from cellseg.train.config import TrainConfig, load

if TYPE_CHECKING:
    from cellseg.runtime.model.spec import Head, ModelSpec, SplitSettings

NUCLEI = load(SHIPPED / "nuclei.yml")
#: Its keys that say what is learned, and how much each part counts.
TARGETS = (
    "boundary_at",
    "use_corner",
    "use_density",
    "density_shape",
    "density_spread",
    "density_power",
    "touch_weight",
    "small_weight",
)
#: What each variant switches off, or has otherwise.
VARIANTS = {
    "mask": ("use_corner=0", "use_density=0"),
    "mask + boundary": ("use_density=0",),
    "mask + density": ("use_corner=0",),
    "all": (),
    "all, contacts": ("boundary_at=contacts",),
    "all, group norm": ("norm=group",),
    "as nuclei": tuple(f"{key}={getattr(NUCLEI, key)}" for key in TARGETS),
}
#: One training image in so many tunes the splitter.
EVERY = 12
#: Settings of the splitter to try.
TRIALS = 50
SHOWN = ("ap50", "ap75", "ap_mean_50_90", "count_mae")
Record = dict[str, Any]


def measure(config: TrainConfig, folder: Path) -> Record:
    """Train, or go on training, in `folder`; score its last weights on the validation images."""
    import lightning_fabric as lf

    from cellseg.runtime.model.spec import SplitSettings
    from cellseg.runtime.tuning.cases import Case
    from cellseg.runtime.tuning.trials import try_settings
    from cellseg.runtime.tuning.tune import TuneOptions, tune
    from cellseg.train import checkpoint
    from cellseg.train.data import read_dataset
    from cellseg.train.loop import train
    from cellseg.train.models import build_model
    from cellseg.train.models.heads import ENCODINGS
    from cellseg.train.validate import predict

    train(config, folder)
    saved = checkpoint.load(folder / "last.pt")
    model = build_model(config)
    model.load_state_dict(saved["ema"] or saved["model"])
    fabric = lf.Fabric(accelerator=config.accelerator, devices=1)
    model.to(fabric.device)
    tuning, validation = read_dataset(config)
    known = list(predict(model, tuning[::EVERY], config, fabric))
    asked = list(predict(model, validation, config, fabric))
    both, found, true = (sum(part) for part in zip(*(each.overlap for each in asked), strict=True))
    figures: Record = {"steps": saved["step"], "dice": 2 * both / max(found + true, 1)}
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for name, used in (("mask", ("mask",)), ("planes", config.heads)):
        if used not in scores:
            heads = tuple(ENCODINGS[head] for head in used)
            cases, unseen = (
                [Case("all", np.ascontiguousarray(p.planes[: len(used)]), p.sample.labels) for p in part]
                for part in (known, asked)
            )
            spec = spec_of(config, heads, SplitSettings.suited(used))
            best = tune(cases, spec, TuneOptions(trials=TRIALS, jobs=1)).split
            scores[used] = try_settings(unseen, heads, best)["all"]
        figures |= {f"{key} from {name}": scores[used][key] for key in SHOWN}
    return figures


def spec_of(config: TrainConfig, heads: tuple[Head, ...], split: SplitSettings) -> ModelSpec:
    """Return what the tuner must know of a network: which planes it has, and where to start."""
    from cellseg.runtime.model.spec import ModelSpec

    return ModelSpec(
        name="ablation",
        architecture=config.model,
        channels=3,
        heads=heads,
        multiple=1,
        halo=0,
        receptive_field=0,
        split=split,
    )


def summary(runs: list[Record]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, standard deviation and number of runs of each figure, by variant."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for variant in dict.fromkeys(run["variant"] for run in runs):
        mine = [run for run in runs if run["variant"] == variant]
        table[variant] = {
            name: {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else float("nan"),
                "runs": len(values),
            }
            for name in mine[0]
            if name not in ("variant", "seed", "steps")
            for values in [[run[name] for run in mine]]
        }
    return table


def show(table: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the summary as Markdown."""
    names = list(next(iter(table.values())))
    click.echo("| variant | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for variant, figures in table.items():
        cells = (f"{f['mean']:.3f} ± {f['std']:.3f}" for f in figures.values())
        click.echo(f"| {variant} | " + " | ".join(cells) + " |")


@click.command("ablation", cls=common.Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for runs and ablation.json."
)
@click.option("--config", default="fast", help="A configuration file, or the name of a shipped one.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the configuration."
)
@click.option("--seeds", default=3, show_default=True, help="Seeds 0, 1, … of each variant.")
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), help="Variants; by default all.")
def main(
    data: Path, out: Path, config: str, overrides: tuple[str, ...], seeds: int, only: tuple[str, ...]
) -> None:
    """Train every variant on DATA with every seed and compare them."""
    path = Path(config) if Path(config).suffix else SHIPPED / f"{config}.yml"
    result = out / "ablation.json"
    runs: list[Record] = json.loads(result.read_text())["runs"] if result.exists() else []
    finished = {(run["variant"], run["seed"]) for run in runs}
    common_settings = (*overrides, f"dataset_path={data}", "resume=true", "overlay_interval=0")
    for seed in range(seeds):  # seeds outermost: a table of few seeds is there early
        for variant, switches in VARIANTS.items():
            if (variant, seed) in finished or (only and variant not in only):
                continue
            checked = load(path, (*common_settings, *switches, f"randseed={seed}"))
            folder = out / f"{variant.replace(' + ', '-').replace(', ', '-').replace(' ', '-')}-{seed}"
            figures = measure(checked, folder)
            runs.append({"variant": variant, "seed": seed, **figures})
            click.echo(
                "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in runs[-1].items())
            )
            record = {"config": config, "overrides": overrides, "runs": runs, "summary": summary(runs)}
            partial = result.with_suffix(".part")
            partial.write_text(json.dumps(record, indent=1) + "\n")
            partial.replace(result)
    show(summary(runs))


if __name__ == "__main__":
    main()

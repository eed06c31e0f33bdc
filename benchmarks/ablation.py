"""Do boundary and density help, and what does the norm cost? The paper's claim, with spread.

    python benchmarks/ablation.py datasets/dsb2018 --out ablation --seeds 3
    python benchmarks/ablation.py datasets/dsb2018 --out ablation --config fast --set iters=4000
    python benchmarks/ablation.py datasets/dsb2018 --out networks --models

Mask alone, with boundary, with density, with both, both with a boundary between touching cells only,
both with group norm, and both with the targets and weights of ``nuclei.yml``: each for every seed, on
the same configuration and the same number of steps.
The last weights count, not the best ones, so that nothing is picked on the images it is measured on.
Two ways of finding cells are scored: from the mask alone, which is the paper's claim that auxiliary
losses improve the shared features, and from all planes that the network has, which is how it is used.
For each the runtime's splitter is tuned by as many trials on some of the training images, and learns
its rules from them where they help, as ``cellseg-tune`` does.

``--models`` asks instead whether the branches help on other networks: each of the paper's, alone and with
both branches; U-Net at the cost of MC-UNet, which says what the multi-scale blocks are worth; and MC-UNet
with all losses on its one output, as the method's released code has it.

A run that was interrupted continues where it stopped, and one that is finished is not repeated;
``ablation.json`` in the folder is replaced after each.
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
from cellseg.train.config import ModelName, TrainConfig, load

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
#: The networks of the paper's comparison.
MODELS: tuple[ModelName, ...] = ("UNET", "RESUNET", "LinkNet", "MCUNET", "MCLinkNet")
MASK_ALONE = ("use_corner=0", "use_density=0")
#: Pixels along an edge on which operations are counted.
COUNTED = 256
SHOWN = ("ap50", "ap75", "ap_mean_50_90", "count_mae")
Record = dict[str, Any]


def networks(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the variants of ``--models``: what each switches in `config`."""
    wide = width_at_cost_of(config, "UNET", "MCUNET")
    found: dict[str, tuple[str, ...]] = {}
    for name in MODELS:
        found |= {name: (f"model={name}", *MASK_ALONE), f"{name}, both": (f"model={name}",)}
    if wide != config.init_channel_number:
        found["UNET, wide"] = ("model=UNET", f"init_channel_number={wide}", *MASK_ALONE)
        found["UNET, wide, both"] = ("model=UNET", f"init_channel_number={wide}")
    found["MCUNET, one output"] = ("model=MCUNET", "separate_heads=false")
    return found


def width_at_cost_of(config: TrainConfig, model: ModelName, other: ModelName) -> int:
    """Return the width at which `model` takes about as many operations a pixel as `other` does."""
    wanted = cost_of(config.model_copy(update={"model": other}))["gflop_mpx"]

    def apart(width: int) -> float:
        of_it = config.model_copy(update={"model": model, "init_channel_number": width})
        return abs(cost_of(of_it)["gflop_mpx"] - wanted)

    return min(range(1, 4 * config.init_channel_number), key=apart)


def cost_of(config: TrainConfig) -> dict[str, float]:
    """Return the parameters and the operations (GFLOP/Mpx) of a network with all its heads."""
    from cellseg.export.graph import Deployable, cost
    from cellseg.train.models import build_model
    from cellseg.train.models.heads import ENCODINGS

    network = Deployable(build_model(config), tuple(ENCODINGS[head] for head in config.outputs))
    found = cost(network, config.in_channels, COUNTED)
    return {"parameters": found.parameters, "gflop_mpx": found.gflop_per_megapixel}


def measure(config: TrainConfig, folder: Path, trials: int, every: int) -> Record:
    """Train, or go on training, in `folder`; score its last weights on the validation images.

    One training image in `every` tunes the splitter, by `trials` settings.
    """
    from cellseg.runtime.model.spec import SplitSettings
    from cellseg.runtime.tuning.cases import Case
    from cellseg.runtime.tuning.trials import try_settings
    from cellseg.runtime.tuning.tune import TuneOptions, tune
    from cellseg.train import checkpoint
    from cellseg.train.data.samples import read_dataset
    from cellseg.train.models import build_model
    from cellseg.train.models.heads import ENCODINGS
    from cellseg.train.running.device import open_fabric
    from cellseg.train.running.loop import train
    from cellseg.train.running.validate import predict

    train(config, folder)
    saved = checkpoint.load(folder / "last.pt")
    model = build_model(config)
    model.load_state_dict(saved["ema"] or saved["model"])
    fabric = open_fabric(config)
    model.to(fabric.device)
    tuning, validation = read_dataset(config)
    known = list(predict(model, tuning[::every], config, fabric))
    asked = list(predict(model, validation, config, fabric))
    both, found, true = (sum(part) for part in zip(*(each.overlap for each in asked), strict=True))
    figures: Record = {
        "steps": saved["step"],
        **cost_of(config),
        "dice": 2 * both / max(found + true, 1),
        "iou": both / max(found + true - both, 1),
        "precision": both / max(found, 1),
        "sensitivity": both / max(true, 1),
    }
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for name, used in (("mask", ("mask",)), ("planes", config.outputs)):
        if used not in scores:
            heads = tuple(ENCODINGS[head] for head in used)
            cases, unseen = (
                [Case("all", np.ascontiguousarray(p.planes[: len(used)]), p.sample.labels) for p in part]
                for part in (known, asked)
            )
            spec = spec_of(config, heads, SplitSettings.suited(used))
            best = tune(cases, spec, TuneOptions(trials=trials, jobs=1)).split
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
@click.option("--trials", default=50, show_default=True, help="Settings of the splitter to try.")
@click.option("--every", default=12, show_default=True, help="Of this many training images one tunes it.")
@click.option("--models", is_flag=True, help="Compare networks, each with and without the branches.")
@click.option("--only", multiple=True, metavar="VARIANT", help="Variants; by default all.")
def main(
    data: Path,
    out: Path,
    config: str,
    overrides: tuple[str, ...],
    seeds: int,
    trials: int,
    every: int,
    models: bool,
    only: tuple[str, ...],
) -> None:
    """Train every variant on DATA with every seed and compare them."""
    path = Path(config) if Path(config).suffix else SHIPPED / f"{config}.yml"
    result = out / "ablation.json"
    runs: list[Record] = json.loads(result.read_text())["runs"] if result.exists() else []
    finished = {(run["variant"], run["seed"]) for run in runs}
    common_settings = (*overrides, f"dataset_path={data}", "resume=true", "overlay_interval=0")
    variants = networks(load(path, common_settings)) if models else VARIANTS
    if unknown := [name for name in only if name not in variants]:
        raise click.UsageError(f"--only: no variant '{unknown[0]}'; there are {'; '.join(variants)}")
    for seed in range(seeds):  # seeds outermost: a table of few seeds is there early
        for variant, switches in variants.items():
            if (variant, seed) in finished or (only and variant not in only):
                continue
            checked = load(path, (*common_settings, *switches, f"randseed={seed}"))
            folder = out / f"{variant.replace(' + ', '-').replace(', ', '-').replace(' ', '-')}-{seed}"
            figures = measure(checked, folder, trials, every)
            runs.append({"variant": variant, "seed": seed, **figures})
            click.echo(
                "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in runs[-1].items())
            )
            record = {
                "config": config,
                "overrides": overrides,
                "trials": trials,
                "every": every,
                "runs": runs,
                "summary": summary(runs),
            }
            partial = result.with_suffix(".part")
            partial.write_text(json.dumps(record, indent=1) + "\n")
            partial.replace(result)
    show(summary(runs))


if __name__ == "__main__":
    main()

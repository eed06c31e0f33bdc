"""How much of a bare PyTorch loop's speed the trainer keeps, and what bf16 gains over fp32.

    python benchmarks/training.py fast --steps 20 --json training.json
    python benchmarks/training.py nuclei --set accelerator=cuda --set workers=8 --steps 200

The bare loop runs the same network, loss and optimiser on ready-made tensors of the same shape: no
files, no crops, no augmentation, no average of the weights, no checks. The trainer does all of that,
on a drawn data set, and is timed by its own meter in its second interval. Each measurement is a
process of its own, so that peaks of memory do not mix; rounds of all measurements alternate, and a
ratio is the median of the rounds, because other work on the machine changes from minute to minute.

Memory is what PyTorch allocated on a GPU, and the largest resident size of the process on a CPU,
whose interpreter and libraries take about 400 MB of it.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import cv2
import numpy as np

from cellseg.train.cli import SHIPPED
from cellseg.train.config import TrainConfig, load

Result = dict[str, float]


def draw_data_set(root: Path, channels: int, edge: int, images: int) -> None:
    """Write round cells on noise in the method's layout."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 1)):
        for name in ("image", "label"):
            (root / split / name).mkdir(parents=True)
        for i in range(count):
            labels = np.zeros((edge, edge), np.uint16)
            for number in range(1, edge * edge // 900):
                x, y = (int(v) for v in rng.integers(0, edge, 2))
                cv2.circle(labels, (x, y), int(rng.integers(6, 13)), number, -1)
            image = np.clip(40 + 120 * (labels > 0) + rng.normal(0, 12, labels.shape), 0, 255).astype(
                np.uint8
            )
            if channels == 3:
                image = np.repeat(image[..., None], 3, axis=2)
            cv2.imwrite(str(root / split / "image" / f"{i}.png"), image)
            cv2.imwrite(str(root / split / "label" / f"{i}.png"), labels)


def peak_megabytes() -> float:
    """Return the largest memory so far, of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def bare(config: TrainConfig, steps: int) -> Result:
    """Time forward, loss, backward and optimiser on tensors that are there."""
    import torch

    from cellseg.train.losses import JointLoss
    from cellseg.train.models import build_model
    from cellseg.train.running.loop import make_optimizer

    device = torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model = build_model(config).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, config)
    loss_of = JointLoss.of(config)
    n, edge = config.batch_size, config.crop
    image = torch.rand(n, config.in_channels, edge, edge, device=device).contiguous(memory_format=layout)
    planes = {
        name: torch.rand(n, edge, edge, device=device).round() for name in ("mask", "boundary", "emphasis")
    }
    planes |= {"density": planes["mask"] / 100, "valid": torch.ones_like(planes["mask"])}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[config.precision]

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            with torch.autocast(device.type, dtype, enabled=config.precision != "fp32"):
                logits = model(image)
            loss, _ = loss_of(logits, planes)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()  # waits for the device
        return time.perf_counter() - started

    run(max(2, steps // 5))
    return {"images_s": n * steps / run(steps), "peak_mb": peak_megabytes()}


def trainer(config: TrainConfig, steps: int, folder: Path) -> Result:
    """Time the training loop by its own meter; the first interval warms up."""
    import csv

    from cellseg.train.running.loop import train

    train(config, folder)
    with (folder / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "images_s": float(last["images_s"]),
        "data_wait": float(last["data_wait"]),
        "peak_mb": peak_megabytes(),
    }


def measure(kind: str, config: TrainConfig, steps: int, folder: Path) -> Result:
    """Run one measurement in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        if kind == "bare":
            return pool.submit(bare, config, steps).result()
        return pool.submit(trainer, config, steps, folder).result()


@click.command()
@click.argument("config", default="fast")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option("--steps", default=20, help="Steps of one measurement.")
@click.option("--rounds", default=3, help="Rounds of all measurements.")
@click.option(
    "--precision", "precisions", multiple=True, default=("fp32", "bf16"), help="Precisions to compare."
)
@click.option("--edge", default=512, help="Edge of the drawn training images, pixels.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(
    config: str,
    overrides: tuple[str, ...],
    steps: int,
    rounds: int,
    precisions: tuple[str, ...],
    edge: int,
    json_path: Path | None,
) -> None:
    """Compare the trainer with a bare loop on CONFIG, a file or the name of a shipped configuration."""
    path = Path(config) if Path(config).suffix else SHIPPED / f"{config}.yml"
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        draw_data_set(root / "cells", load(path, overrides).in_channels, edge, images=8)
        for round_ in range(rounds):
            for precision in precisions:
                for kind in ("bare", "trainer"):
                    settings = (
                        f"dataset_path={root / 'cells'}",
                        f"precision={precision}",
                        f"val_interval={steps}",
                        f"iters={2 * steps}",
                        "epochs=1000000",
                        "overlay_interval=0",
                        "schedule=plateau",
                    )
                    checked = load(path, (*overrides, *settings))
                    result = measure(kind, checked, steps, root / f"{kind}_{precision}_{round_}")
                    results.setdefault(f"{kind} {precision}", []).append(result)
                    figures = "  ".join(f"{name} {value:.3g}" for name, value in result.items())
                    click.echo(f"round {round_ + 1}  {kind:7} {precision}  {figures}")

    def ratio(above: str, below: str) -> float:
        pairs = zip(results[above], results[below], strict=True)
        return statistics.median(a["images_s"] / b["images_s"] for a, b in pairs)

    summary: dict[str, float] = {}
    for precision in precisions:
        summary[f"trainer_of_bare_{precision}"] = ratio(f"trainer {precision}", f"bare {precision}")
        peaks = [max(r["peak_mb"] for r in results[f"{kind} {precision}"]) for kind in ("trainer", "bare")]
        summary[f"memory_over_bare_mb_{precision}"] = peaks[0] - peaks[1]
    if {"fp32", "bf16"} <= set(precisions):
        summary["bf16_of_fp32_bare"] = ratio("bare bf16", "bare fp32")
        summary["bf16_of_fp32_trainer"] = ratio("trainer bf16", "trainer fp32")
    for name, value in summary.items():
        click.echo(f"{name:28} {value:.3g}")
    if json_path is not None:
        record = {"config": config, "overrides": overrides, "steps": steps, "rounds": results, **summary}
        json_path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

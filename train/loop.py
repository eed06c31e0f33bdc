"""The training loop, top to bottom: data, model, steps, validation, checkpoints."""

from __future__ import annotations

import csv
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning_fabric as lf
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cellseg.runtime.errors import CellsegError

from . import checkpoint
from .augment import Photometric
from .config import TrainConfig
from .data import Crops, CropSource, Sample, StepSampler, make_targets, read_split
from .losses import JointLoss, foreground_logit
from .models import build_model

log = logging.getLogger("cellseg.train")
PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(config: TrainConfig, name: str, source: Path | None = None) -> Path:
    """Train as `config` says, into ``work_dir/name/``; return the path of the best checkpoint.

    Parameters
    ----------
    config
        A checked configuration.
    name
        Name of the run's folder.
    source
        The configuration file, copied beside the results.
    """
    fabric = lf.Fabric(
        accelerator=config.accelerator, devices=config.devices, precision=PRECISION[config.precision]
    )
    fabric.launch()
    folder = Path(config.work_dir) / name
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None and fabric.is_global_zero:
        shutil.copyfile(source, folder / "config.yml")

    root = Path(config.dataset_path)
    training = read_split(root / "train", config.in_channels)
    validation = read_split(root / "val", config.in_channels)
    log.info("%d training and %d validation images", len(training), len(validation))

    torch.manual_seed(config.randseed)
    model = build_model(config)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, config)
    average = Ema(model, config.ema) if config.ema else None
    log.info("%s: %.2f M parameters", config.model, sum(p.numel() for p in model.parameters()) / 1e6)

    whole_batch = config.batch_size * fabric.world_size
    epoch_steps = max(1, len(training) // whole_batch)
    steps = min(config.iters, config.epochs * epoch_steps)
    interval = config.val_interval or epoch_steps
    schedule = Schedule(config, steps)
    step, best = 0, -math.inf
    last, best_path = folder / "last.pt", folder / "best.pt"
    if config.resume and last.is_file():
        state = checkpoint.load(last)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load(state["ema"])
        schedule.load(state["schedule"])
        step, best = state["step"], state["best"]
        log.info("resuming %s at step %d", last, step)

    net, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(
        DataLoader(
            Crops(CropSource(training, config)),
            batch_sampler=StepSampler(step, steps, config.batch_size, fabric.global_rank, fabric.world_size),
            num_workers=config.workers,
            persistent_workers=False,
            pin_memory=fabric.device.type == "cuda",
        ),
        use_distributed_sampler=False,
    )
    photometric = Photometric(config.augment, config.in_channels).to(fabric.device)
    loss_of = JointLoss(config.use_corner, config.use_density, config.dice_weight, config.touch_weight)
    sums: dict[str, float] = {}
    waited, started, since = 0.0, time.perf_counter(), step

    mark = time.perf_counter()
    for batch in loader:
        waited += time.perf_counter() - mark
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        image = photometric(batch["image"], seed=hash_seed(config.randseed, step, fabric.global_rank))
        if config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        loss, parts = loss_of(net(image), batch)
        if not torch.isfinite(loss):
            raise CellsegError(
                f"training stopped at step {step}: the loss is {loss.item()}; the last good checkpoint is "
                f"{last}; lower learning_rate (now {config.learning_rate:g}) or use precision: fp32"
            )
        fabric.backward(loss)
        fabric.clip_gradients(net, optimizer, max_norm=5.0)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(model, step)
        step += 1
        for key, value in {"loss": loss.detach(), **parts}.items():
            sums[key] = sums.get(key, 0.0) + float(value)

        if step % interval == 0 or step == steps:
            took = time.perf_counter() - started
            row: dict[str, float] = {"step": step, "epoch": step / epoch_steps, "lr": schedule.rate(step - 1)}
            row |= {f"train_{key}": value / (step - since) for key, value in sums.items()}
            row |= {"images_s": (step - since) * whole_batch / took, "data_wait": waited / took}
            tested = average.model if average is not None else model
            row |= {f"val_{key}": v for key, v in evaluate(tested, validation, config, loss_of, fabric).items()}
            schedule.observe(row["val_loss"])
            score = -row["val_loss"]
            if fabric.is_global_zero:
                _report(folder, row)
                state = {
                    "config": config.model_dump(),
                    "model": model.state_dict(),
                    "ema": average.model.state_dict() if average is not None else None,
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state(),
                    "step": step,
                    "best": max(best, score),
                }
                checkpoint.save(last, state)
                if score > best:
                    checkpoint.save(best_path, state)
            best = max(best, score)
            if schedule.exhausted:
                log.info("no better validation loss for %d epochs: stopping", config.patience)
                break
            sums, waited, started, since = {}, 0.0, time.perf_counter(), step
        mark = time.perf_counter()
    return best_path


def hash_seed(*parts: int) -> int:
    """Return a seed that differs for each combination of parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class Ema:
    """Exponential moving average of the weights; batch-norm statistics are averaged alike."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        import copy

        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model`; early steps count for more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(
            self.model.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the averaged weights."""
        self.model.load_state_dict(state)


class Schedule:
    """Learning rate by step: warm-up, then cosine to zero or halving on a plateau."""

    def __init__(self, config: TrainConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        cfg = self.config
        rate = cfg.learning_rate * min(1.0, (step + 1) / (cfg.warmup + 1))
        if cfg.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / max(1, self.steps)))
        return rate * self.factor

    def observe(self, loss: float) -> None:
        """Take a validation loss; on a plateau of half the patience, halve the rate."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.config.schedule == "plateau" and self.waited % max(1, self.config.patience // 2) == 0:
            self.factor *= 0.5

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.config.patience

    def state(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]


@torch.inference_mode()
def evaluate(
    model: nn.Module, samples: list[Sample], config: TrainConfig, loss_of: JointLoss, fabric: lf.Fabric
) -> dict[str, float]:
    """Mean losses over whole images and pooled Dice of the mask."""
    training = model.training
    model.eval()
    sums: dict[str, float] = {}
    overlap = total = 0.0
    for image, planes in _padded(samples, config, model.multiple):
        image = image.to(fabric.device)
        planes = {name: plane.to(fabric.device) for name, plane in planes.items()}
        with fabric.autocast():
            logits = model(image)
        loss, parts = loss_of(logits, planes)
        for key, value in {"loss": loss, **parts}.items():
            sums[key] = sums.get(key, 0.0) + float(value) / len(samples)
        predicted = (foreground_logit(logits["mask"]) > 0) & (planes["valid"] > 0)
        overlap += 2 * float((predicted * planes["mask"]).sum())
        total += float(predicted.sum() + planes["mask"].sum())
    model.train(training)
    return {**sums, "dice": overlap / max(total, 1.0)}


def _padded(
    samples: list[Sample], config: TrainConfig, multiple: int
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield whole images as batches of one, reflected up to a multiple; the margin is not valid."""
    for sample in samples:
        h, w = sample.labels.shape
        edges = ((0, -h % multiple), (0, -w % multiple))
        image = np.pad(sample.image, (*edges, (0, 0)), mode="reflect").transpose(2, 0, 1)
        valid = np.pad(np.ones((h, w), np.uint8), edges)
        planes = make_targets(
            np.pad(sample.labels, edges),
            valid,
            config,
            None if sample.boundary is None else np.pad(sample.boundary, edges),
            None if sample.density is None else np.pad(sample.density, edges),
        )
        tensor = torch.from_numpy(np.ascontiguousarray(image))[None].float() / 255
        yield (
            tensor.contiguous(memory_format=torch.channels_last),
            {name: torch.from_numpy(plane)[None] for name, plane in planes.items()},
        )


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = model.parameters()
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, config.learning_rate, weight_decay=config.weight_decay)


def _report(folder: Path, row: dict[str, float]) -> None:
    path = folder / "metrics.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
    log.info("  ".join(f"{key} {value:.4g}" for key, value in row.items()))

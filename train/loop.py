"""The training loop, top to bottom: data, model, steps, validation, checkpoints.

A run is a pure function of its configuration: crop and look of every picture follow from the seed
and the step, and a checkpoint holds all that the steps before have left. So a run that was
interrupted or killed continues as if nothing had happened.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import cv2
import lightning_fabric as lf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cellseg.runtime.errors import ModelError, OutputError

from . import checkpoint
from .augment import photometric
from .config import TrainConfig
from .crops import Crops, CropSource, StepSampler
from .data import Sample, read_dataset
from .device import agree, loader_workers, open_fabric, share_norms, start_worker, total_over
from .interrupt import Interrupt
from .losses import JointLoss
from .meter import Meter
from .models import build_model
from .models.nets import UNet
from .pictures import overlay
from .report import Report
from .run import prepare, starting_point
from .schedule import Ema, Schedule
from .validate import evaluate, predict
from .weights import adopt

log = logging.getLogger("cellseg.train")

#: Validation images in an overlay.
SHOWN = 4
#: Crops that show what a network's norms see before it is trained.
EXAMPLES = 32


def train(config: TrainConfig, folder: Path, *, overwrite: bool = False) -> Path:
    """Train as `config` says; return the path of the best checkpoint.

    Parameters
    ----------
    config
        A checked configuration.
    folder
        The run's folder; :data:`cellseg.train.run.KEPT` lists what it will hold.
    overwrite
        Start over in a folder that holds a run.

    Raises
    ------
    CellsegError
        The data set, the folder or the checkpoint to continue from is at fault, the disk is full, or
        the loss is no longer a number.
    KeyboardInterrupt, SystemExit
        SIGINT or SIGTERM came; ``last.pt`` holds the step that was reached.
    """
    last_path, best_path = folder / "last.pt", folder / "best.pt"
    saved = starting_point(folder, config, overwrite)
    training, validation = read_dataset(config)
    fabric = open_fabric(config)
    log.setLevel(config.log_level if fabric.is_global_zero else logging.ERROR)
    torch.manual_seed(config.randseed)
    model = build_model(config)
    source = CropSource(training, config)
    new_heads = None
    if config.weights and saved is None:
        new_heads = adopt(model, config, lambda: examples(source))
    if fabric.is_global_zero:  # only now: weights that cannot be used must not cost an earlier run
        prepare(folder, config, fresh=saved is None)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = share_norms(model, fabric)
    optimizer = make_optimizer(model, config)
    compiled = cast(nn.Module, torch.compile(model)) if config.compile else model
    net, fabric_optimizer = fabric.setup(compiled, optimizer)
    average = Ema(model, config.ema) if config.ema else None
    tested = model if average is None else average.model

    whole_batch = config.batch_size * fabric.world_size
    epoch_steps = max(1, len(training) // whole_batch)
    steps = min(config.iters, config.epochs * epoch_steps)
    interval = config.val_interval or epoch_steps
    schedule, meter, step = Schedule(config, steps), Meter(source, last_path), 0

    def state() -> dict[str, Any]:
        return {
            "config": config.model_dump(),
            "model": model.state_dict(),
            "ema": None if average is None else average.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state(),
            "step": step,
            "best": -schedule.best,
            "meter": meter.state(),
            "precision": fabric.strategy.precision.state_dict(),
        }

    if saved is not None:
        try:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            if average is not None:
                average.model.load_state_dict(checkpoint.weights(saved))
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"{folder}: its network is not the one that the configuration names ({reason}); set the "
                "configuration as it was, or start over with --overwrite"
            ) from None
        schedule.load(saved["schedule"])
        step = saved["step"]
        if "meter" in saved:
            meter.load(saved["meter"], fabric.device)
            fabric.strategy.precision.load_state_dict(saved["precision"])

    end = step if schedule.exhausted else steps  # patience had run out when it was saved
    loader = DataLoader(
        Crops(source),
        batch_sampler=StepSampler(step, end, config.batch_size, fabric.global_rank, fabric.world_size),
        num_workers=loader_workers(config),
        worker_init_fn=start_worker,
        pin_memory=fabric.device.type == "cuda",
    )
    loss_of = JointLoss.of(config, total_over(fabric))
    with (
        Report(folder, step, steps, whole_batch, active=fabric.is_global_zero) as report,
        Interrupt() as interrupt,
    ):
        log.info("%d training and %d validation images", len(training), len(validation))
        count = sum(parameter.numel() for parameter in model.parameters())
        log.info("%s: %.2f M parameters, steps %d to %d", config.model, count / 1e6, step, steps)
        if new_heads is not None:
            log.info("weights from %s, new heads: %s", config.weights, ", ".join(new_heads) or "none")
        meter.resume()
        for batch in loader:
            meter.waited()
            rate = schedule.rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            look, index = batch.pop("look"), batch.pop("index")
            batch = {name: plane.to(fabric.device, non_blocking=True) for name, plane in batch.items()}
            image = photometric(batch.pop("image"), look)
            if config.channels_last:
                image = image.contiguous(memory_format=torch.channels_last)

            loss, parts = loss_of(net(image), batch)
            fabric.backward(loss)
            norm = fabric.clip_gradients(net, fabric_optimizer, max_norm=5.0, error_if_nonfinite=False)
            fabric_optimizer.step()
            fabric_optimizer.zero_grad()
            if average is not None:
                average.update(step)
            if config.precision == "fp16":
                norm = None  # its scaling deals with overflows itself
            meter.add(step, {"loss": loss.detach(), **parts}, norm, index)
            step += 1
            report.progress(step, meter.losses)

            if step % interval == 0 or step == steps:
                meter.settle()
                meter.clock()
                row: dict[str, float] = {"step": step, "epoch": step / epoch_steps, "lr": rate}
                row |= meter.row(step, whole_batch)
                figures = evaluate(tested, validation, config, fabric)
                row |= {f"val_{name}": value for name, value in figures.items()}
                if not np.isfinite(figures["loss"]):
                    meter.fail(f"the validation loss after step {step - 1} is {figures['loss']}")
                better = schedule.observe(score(figures, config))
                meter.reset(step)
                if fabric.is_global_zero:
                    # `last` comes last: once it is there, these steps will not be done again.
                    report.record(row)
                    if due(config, step, interval, steps):
                        report.picture("overlays", step, show(tested, validation, config, fabric))
                    if better:
                        checkpoint.save(best_path, state())
                    checkpoint.save(last_path, state())
                if schedule.exhausted:
                    log.info("no better validation in %d: stopping", config.patience)
                    break
            else:
                meter.clock()
            if signal := agree(interrupt.received, step, fabric):
                meter.settle()
                if fabric.is_global_zero:
                    checkpoint.save(last_path, state())
                log.info("interrupted: %s holds step %d; go on with --resume", last_path, step)
                interrupt.stop(signal)
            meter.resume()
    if config.pred_result and fabric.is_global_zero:
        predict_best(best_path, model, validation, config, fabric)
    return best_path


def examples(source: CropSource) -> Tensor:
    """Return the first training crops as the network gets them, float (EXAMPLES, C, H, W) in 0…1."""
    crops = [Crops(source)[index] for index in range(EXAMPLES)]
    image, look = (torch.stack([crop[name] for crop in crops]) for name in ("image", "look"))
    return photometric(image, look)


def score(figures: dict[str, float], config: TrainConfig) -> float:
    """Return what makes a checkpoint the best; higher is better."""
    if config.best_by == "loss":
        return -figures["loss"]
    return figures["dice" if config.best_by == "dice" else "ap_mean_50_90"]


def due(config: TrainConfig, step: int, interval: int, steps: int) -> bool:
    """Whether this validation shows pictures: every `overlay_interval`-th, and the last one."""
    if not config.overlay_interval:
        return False
    return step == steps or step // interval % config.overlay_interval == 0


def show(model: UNet, validation: list[Sample], config: TrainConfig, fabric: lf.Fabric) -> NDArray[np.uint8]:
    """Draw predictions on a few validation images, evenly chosen."""
    chosen = validation[:: -(-len(validation) // SHOWN)]
    return overlay(list(predict(model, chosen, config, fabric)), config.heads)


def predict_best(
    best: Path, model: UNet, validation: list[Sample], config: TrainConfig, fabric: lf.Fabric
) -> None:
    """Write what the best checkpoint finds in each validation image to `pred_result`, as 16-bit labels."""
    saved = checkpoint.load(best)
    model.load_state_dict(checkpoint.weights(saved))
    folder = Path(config.pred_result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for prediction in predict(model, validation, config, fabric):
            _, data = cv2.imencode(".png", prediction.labels.astype(np.uint16))
            (folder / f"{prediction.sample.name}.png").write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); change pred_result") from None
    log.info("label images of %d validation images are in %s", len(validation), folder)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that the configuration names."""
    parameters = model.parameters()
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, config.learning_rate, weight_decay=config.weight_decay)

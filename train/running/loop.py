"""The training loop, top to bottom: data, model, steps, validation, checkpoints.

A run is a pure function of its configuration: crop and look of every picture follow from the seed
and the step, and a checkpoint holds all that the steps before have left. So a run that was
interrupted or killed continues as if nothing had happened.
"""

from __future__ import annotations

import copy
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

from cellseg.runtime.errors import ModelError, OutputError, UsageError

from .. import checkpoint
from ..config import TrainConfig
from ..data.crops import Crops, CropSource, StepSampler
from ..data.samples import Sample, read_dataset
from ..looks.augment import photometric
from ..losses import JointLoss
from ..models import build_model
from ..models.nets import UNet
from ..weights import keep
from ..weights.inherit import Inheritance, inherit
from ..weights.start import adopt
from .device import agree, loader_workers, open_fabric, share_norms, start_worker, total_over
from .interrupt import Interrupt
from .meter import Meter
from .pictures import overlay
from .report import Report
from .run import prepare, starting_point
from .schedule import Ema, Schedule
from .validate import evaluate, predict

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
        The run's folder; :data:`cellseg.train.running.run.KEPT` lists what it will hold.
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
    saved = starting_point(folder, config, overwrite)
    training, validation = read_dataset(config)
    fabric = open_fabric(config)
    log.setLevel(config.log_level if fabric.is_global_zero else logging.ERROR)
    torch.manual_seed(config.randseed)
    run = _Training(config, folder, fabric, CropSource(training, config), validation, fresh=saved is None)
    if saved is not None:
        run.restore(saved)
    end = run.step if run.schedule.exhausted else run.steps  # patience had run out when it was saved
    with (
        Report(folder, run.step, run.steps, run.whole_batch, active=fabric.is_global_zero) as report,
        Interrupt() as interrupt,
    ):
        run.introduce()
        run.meter.resume()
        for batch in run.loader(end):
            run.learn(batch)
            report.progress(run.step, run.meter.losses)
            if run.step % run.interval == 0 or run.step == run.steps:
                run.judge(report)
                if run.schedule.exhausted:
                    log.info("no better validation in %d: stopping", config.patience)
                    break
            else:
                run.meter.clock()
            if signal := agree(interrupt.received, run.step, fabric):
                run.meter.settle()
                run.save()
                log.info("interrupted: %s holds step %d; go on with --resume", run.last_path, run.step)
                interrupt.stop(signal)
            run.meter.resume()
    if config.pred_result and fabric.is_global_zero:
        predict_best(run.best_path, run.model, validation, config, fabric)
    return run.best_path


class _Training:
    """One run between its steps: the network, its optimiser and average, and how far it has come."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        fabric: lf.Fabric,
        source: CropSource,
        validation: list[Sample],
        *,
        fresh: bool,
    ) -> None:
        self.config, self.folder, self.fabric = config, folder, fabric
        self.source, self.validation = source, validation
        self.last_path, self.best_path = folder / "last.pt", folder / "best.pt"
        model = build_model(config)
        self.new_heads: list[str] | None = None
        self.inherited: Inheritance = {}
        self.start: checkpoint.State | None = None
        self.kept = 0.0
        if config.weights and fresh:
            self.new_heads = adopt(model, config, lambda: examples(source))
            self.start = copy.deepcopy(model.state_dict()) if config.keep else None
            self.inherited = inherit(config.weights, (sample.labels for sample in source.samples))
        if fabric.is_global_zero:  # only now: weights that cannot be used must not cost an earlier run
            prepare(folder, config, fresh=fresh)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = share_norms(model, fabric)
        self.optimizer = make_optimizer(self.model, config)
        compiled = cast(nn.Module, torch.compile(self.model)) if config.compile else self.model
        self.net, self.fabric_optimizer = fabric.setup(compiled, self.optimizer)
        self.average = Ema(self.model, config.ema) if config.ema else None
        self.came_to = self.model if self.average is None else self.average.model
        self.tested = copy.deepcopy(self.came_to) if config.keep and config.weights else self.came_to

        self.whole_batch = config.batch_size * fabric.world_size
        self.epoch_steps = max(1, len(source.samples) // self.whole_batch)
        self.steps = min(config.iters, config.epochs * self.epoch_steps)
        self.interval = config.val_interval or self.epoch_steps
        self.schedule, self.meter, self.step = Schedule(config, self.steps), Meter(source, self.last_path), 0
        self.loss_of = JointLoss.of(config, total_over(fabric))

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        return {
            "config": self.config.model_dump(),
            "model": self.model.state_dict(),
            "ema": None if self.average is None else self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "step": self.step,
            "best": -self.schedule.best,
            "meter": self.meter.state(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "inherited": self.inherited,
            "start": self.start,
            "keep": self.kept,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where a checkpoint was saved."""
        if saved["step"] > self.steps:
            raise UsageError(
                f"{self.folder}: is at step {saved['step']} already, beyond the {self.steps} that iters and "
                "epochs allow; raise them to go on, or start over with --overwrite"
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.average is not None:
                self.average.model.load_state_dict(checkpoint.trained(saved))
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"{self.folder}: its network is not the one that the configuration names ({reason}); set the "
                "configuration as it was, or start over with --overwrite"
            ) from None
        self.schedule.load(saved["schedule"])
        self.step = saved["step"]
        self.inherited = saved.get("inherited", {})
        self.start, self.kept = saved.get("start"), saved.get("keep", 0.0)
        if "meter" in saved:
            self.meter.load(saved["meter"], self.fabric.device)
            self.fabric.strategy.precision.load_state_dict(saved["precision"])

    def loader(self, end: int) -> DataLoader[dict[str, Tensor]]:
        """Return the batches of the steps up to `end`."""
        fabric, config = self.fabric, self.config
        return DataLoader(
            Crops(self.source),
            batch_sampler=StepSampler(
                self.step, end, config.batch_size, fabric.global_rank, fabric.world_size
            ),
            num_workers=loader_workers(config),
            worker_init_fn=start_worker,
            pin_memory=fabric.device.type == "cuda",
        )

    def introduce(self) -> None:
        """Log what is trained on what."""
        log.info("%d training and %d validation images", len(self.source.samples), len(self.validation))
        count = sum(parameter.numel() for parameter in self.model.parameters())
        name = self.config.model
        log.info("%s: %.2f M parameters, steps %d to %d", name, count / 1e6, self.step, self.steps)
        if self.new_heads is not None:
            added = ", ".join(self.new_heads) or "none"
            log.info("weights from %s, new heads: %s", self.config.weights, added)

    def learn(self, batch: dict[str, Tensor]) -> None:
        """Take one step."""
        config, fabric = self.config, self.fabric
        self.meter.waited()
        self.rate = self.schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        look, index = batch.pop("look"), batch.pop("index")
        batch = {name: plane.to(fabric.device, non_blocking=True) for name, plane in batch.items()}
        image = photometric(batch.pop("image"), look)
        if config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)

        loss, parts = self.loss_of(self.net(image), batch)
        fabric.backward(loss)
        norm = fabric.clip_gradients(self.net, self.fabric_optimizer, max_norm=5.0, error_if_nonfinite=False)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.step)
        if config.precision == "fp16":
            norm = None  # its scaling deals with overflows itself
        self.meter.add(self.step, {"loss": loss.detach(), **parts}, norm, index)
        self.step += 1

    def judge(self, report: Report) -> None:
        """Validate, and save the state; as the best one where it is."""
        config, step = self.config, self.step
        self.meter.settle()
        self.meter.clock()
        row: dict[str, float] = {"step": step, "epoch": step / self.epoch_steps, "lr": self.rate}
        row |= self.meter.row(step, self.whole_batch)
        figures = self.validate()
        row |= {f"val_{name}": value for name, value in figures.items()}
        if not np.isfinite(figures["loss"]):
            self.meter.fail(f"the validation loss after step {step - 1} is {figures['loss']}")
        better = self.schedule.observe(score(figures, config))
        self.meter.reset(step)
        if not self.fabric.is_global_zero:
            return
        report.record(row)
        if due(config, step, self.interval, self.steps):
            picture = show(self.tested, self.validation, config, self.fabric)
            report.picture("overlays", step, picture)
        if better:
            checkpoint.save(self.best_path, self.state())
        self.save()  # `last` comes last: once it is there, these steps will not be done again

    def validate(self) -> dict[str, float]:
        """Return the figures of the network to be tested, which keeps of its start what may be kept."""
        config, fabric = self.config, self.fabric
        if self.start is None:
            if self.tested is not self.came_to:  # goes on from a checkpoint that kept no start
                self.tested.load_state_dict(self.came_to.state_dict())
            return evaluate(self.tested, self.validation, config, fabric)
        found = {}
        for share in keep.shares(config.keep):
            self.tested.load_state_dict(checkpoint.blend(self.came_to.state_dict(), self.start, share))
            found[share] = evaluate(self.tested, self.validation, config, fabric)
        self.kept = keep.choose({share: score(each, config) for share, each in found.items()})
        self.tested.load_state_dict(checkpoint.blend(self.came_to.state_dict(), self.start, self.kept))
        return found[self.kept] | {"keep": self.kept}

    def save(self) -> None:
        """Save the state as the last one."""
        if self.fabric.is_global_zero:
            checkpoint.save(self.last_path, self.state())


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
    return overlay(list(predict(model, chosen, config, fabric)), config.outputs)


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

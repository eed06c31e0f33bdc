"""Devices, processes and their precision, through Lightning Fabric."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any, Literal, cast

import cv2
import lightning_fabric as lf
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from cellseg.runtime.common.threads import cores
from cellseg.runtime.errors import BackendError

from ..config import TrainConfig
from ..losses import Total
from ..models.nets import UNet

log = logging.getLogger("cellseg.train")

PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISION: dict[str, PrecisionName] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
#: Steps between two agreements of all processes on whether to stop; each waits for the device.
AGREE_EVERY = 16


def open_fabric(config: TrainConfig) -> lf.Fabric:
    """Start the devices, and the other processes where several are asked for or torchrun started us.

    Raises
    ------
    BackendError
        The machine has no such device, or the precision does not work on it.
    """
    wanted = config.accelerator
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "accelerator: cuda, but PyTorch finds no GPU; set accelerator: cpu or install PyTorch for CUDA"
        )
    if wanted == "cuda" and config.devices > torch.cuda.device_count():
        raise BackendError(
            f"devices: {config.devices}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    if wanted == "cpu" and config.precision == "fp16":
        raise BackendError("precision: fp16 needs a GPU; set precision: bf16 or fp32")
    devices, nodes = config.devices, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    # The same run gives the same weights; the original project asks for this too.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # One process needs no other's address: in a batch job, or where a batch system is only installed, Fabric
    # would look for the job's tasks, warn, or refuse its settings.
    alone = LightningEnvironment() if devices == nodes == 1 else None
    fabric = lf.Fabric(
        accelerator=wanted,
        devices=devices,
        num_nodes=nodes,
        precision=PRECISION[config.precision],
        plugins=alone,
    )
    fabric.launch()
    if fabric.world_size > 1 and wanted == "cpu" and config.norm == "batch":
        log.warning("batch norm on several CPU processes takes its statistics in each; norm: group does not")
    return fabric


def share_norms(model: UNet, fabric: lf.Fabric) -> UNet:
    """Let batch norms take their statistics over all processes; only GPUs can."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return cast(UNet, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    return model


def total_over(fabric: lf.Fabric) -> Total:
    """Return the function that sums a tensor's elements over all processes, gradients included."""
    if fabric.world_size == 1:
        return torch.sum
    return lambda values: cast(Tensor, _SumOverProcesses.apply(values.sum()))  # type: ignore[no-untyped-call]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a scalar over all processes, whose gradient is the sum of theirs.

    Every process then computes the same loss L of the shared sums S, and DDP's mean of the gradients
    1/n Σ_r (n dL/dS) dS_r/dθ is the gradient of L.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _sum_over_processes(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _sum_over_processes(grad)


def _sum_over_processes(value: Tensor) -> Tensor:
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value


def agree(received: int, step: int, fabric: lf.Fabric) -> int:
    """Return the signal that any process has received, 0 for none; all return the same at the same step."""
    if fabric.world_size == 1:
        return received
    if step % AGREE_EVERY:
        return 0
    flag = torch.tensor(received, device=fabric.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return int(flag)


def loader_workers(config: TrainConfig) -> int:
    """Return how many processes cut crops."""
    if config.workers is not None:
        return config.workers
    return max(1, min(8, cores() // config.devices - 1))


def start_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, and the cores to its siblings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)

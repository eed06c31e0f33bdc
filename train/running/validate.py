"""What a network is worth on the validation images: its losses, its mask, its cells.

Cells are found by the runtime's own splitter with the settings that suit its heads, so that the score
that picks the best checkpoint is the one that users will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning_fabric as lf
import numpy as np
import torch
from numpy.typing import NDArray

from cellseg.runtime.evaluation.metrics import Score, score, summarise
from cellseg.runtime.instances import split_planes
from cellseg.runtime.model.spec import SplitSettings

from ..config import TrainConfig
from ..data.planes import padded_targets
from ..data.samples import Sample
from ..losses import JointLoss
from ..models.heads import ENCODINGS, foreground_logit, to_planes
from ..models.nets import UNet

#: Figures of the cells that go into the metrics, as :mod:`cellseg.runtime.evaluation.metrics` names them.
FIGURES = ("ap50", "ap75", "ap90", "ap_mean_50_90", "count_mae")
#: Pixels by which images are reflected, as the runtime does by a model's halo. Without them a network
#: sees zeros there, and cells at the edge come out otherwise than they will; farther ones matter little.
MARGIN = 32


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of one whole image."""

    sample: Sample
    #: uint8 (K, H, W), as the runtime gets them from an engine.
    planes: NDArray[np.uint8]
    #: int32 (H, W), 0 is background.
    labels: NDArray[np.int32]
    #: ``loss`` and its named parts.
    losses: dict[str, float]
    #: Foreground pixels of both, of the prediction, of the truth.
    overlap: tuple[int, int, int]


def predict(
    model: UNet, samples: list[Sample], config: TrainConfig, fabric: lf.Fabric
) -> Iterator[Prediction]:
    """Run the network, in evaluation mode meanwhile, on whole images."""
    loss_of = JointLoss.of(config)
    heads = tuple(ENCODINGS[name] for name in config.outputs)
    training = model.training
    model.eval()
    try:
        for sample in samples:
            height, width = sample.labels.shape
            image, planes = padded_targets(sample, config, model.multiple, MARGIN)
            x = torch.from_numpy(np.ascontiguousarray(image)).to(fabric.device).permute(2, 0, 1)[None]
            targets = {
                name: torch.from_numpy(plane)[None].to(fabric.device) for name, plane in planes.items()
            }
            with torch.inference_mode():
                with fabric.autocast():
                    logits = model(x.float() / 255)  # channels last, as the image came
                loss, parts = loss_of(logits, targets)
                found = (foreground_logit(logits["mask"]) > 0) & (targets["valid"] > 0)
                both = (found & (targets["mask"] > 0)).sum()
                true = (targets["mask"] * targets["valid"]).sum()
                inside = slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width)
                planes_ = to_planes(logits)[0][:, *inside].contiguous().cpu().numpy()
            if sample.ignored is not None:  # a cell where nothing is known is neither right nor wrong
                planes_[:, sample.ignored] = 0
            yield Prediction(
                sample,
                planes_,
                split_planes(planes_, heads, SplitSettings.suited(config.outputs)),
                {name: float(value) for name, value in {"loss": loss, **parts}.items()},
                (int(both), int(found.sum()), int(true)),
            )
    finally:
        model.train(training)


def evaluate(model: UNet, samples: list[Sample], config: TrainConfig, fabric: lf.Fabric) -> dict[str, float]:
    """Mean losses over whole images, pooled figures of the mask's pixels, and figures of the cells.

    Every process takes its share of the images; all return the same.
    """
    if fabric.world_size > 1:  # where batch norm is not synchronised, its statistics are rank 0's
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
    share = samples[fabric.global_rank :: fabric.world_size]
    records = [
        (p.losses, p.overlap, score(p.sample.labels, p.labels)) for p in predict(model, share, config, fabric)
    ]
    if fabric.world_size > 1:
        gathered: list[list[tuple[dict[str, float], tuple[int, int, int], Score]]] = [
            [] for _ in range(fabric.world_size)
        ]
        torch.distributed.all_gather_object(gathered, records)
        records = [record for part in gathered for record in part]
    losses, overlaps, scores = zip(*records, strict=True)
    both, found, true = (sum(column) for column in zip(*overlaps, strict=True))
    figures = summarise(scores)
    return {
        **{name: sum(each[name] for each in losses) / len(losses) for name in losses[0]},
        "dice": 2 * both / max(found + true, 1),
        "iou": both / max(found + true - both, 1),
        "precision": both / max(found, 1),
        "sensitivity": both / max(true, 1),
        **{name: float(figures[name]) for name in FIGURES},
    }

"""Pictures for people: samples before training, predictions and curves during it.

All pictures are uint8 (H, W, 3), red, green, blue.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cellseg.runtime.errors import OutputError

from ..data.crops import Crops, CropSource
from ..looks.augment import photometric
from .validate import Prediction

Picture = NDArray[np.uint8]

TRUE, PREDICTED = (0, 220, 60), (255, 0, 200)
#: A panel shows at most the middle square of this edge, pixels.
EDGE = 512
BAR = 20


def preview(source: CropSource, count: int) -> Picture:
    """Show the first crops of a training: image, labels, boundary, density, one crop a row.

    The pixels that count in no loss, being beyond the image, are dimmed.
    """
    rows = []
    for index in range(count):
        crop, tensors = source.crop(index), Crops(source)[index]
        look = photometric(tensors["image"][None], tensors["look"][None])[0]
        image = _to_rgb((look.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        image[crop["valid"] == 0] //= 3
        density = crop["density"] / max(crop["density"].max(), 1e-9)
        panels = {
            f"{source.sample_of(index).name}": image,
            "label": _colored(crop["labels"]),
            "boundary": _grey(crop["boundary"]),
            f"density: {crop['density'].sum():.1f} cells": _grey(density),
        }
        rows.append(_row(panels))
    return np.vstack(rows)


def overlay(predictions: list[Prediction], heads: tuple[str, ...]) -> Picture:
    """Show outlines of true and predicted cells on the image, and each head's plane, one image a row."""
    rows = []
    for prediction in predictions:
        sample = prediction.sample
        window = tuple(
            slice((edge - min(edge, EDGE)) // 2, (edge + min(edge, EDGE)) // 2)
            for edge in sample.labels.shape
        )
        image = _to_rgb(sample.image[window])
        image[_outlines(sample.labels[window])] = TRUE
        image[_outlines(prediction.labels[window])] = PREDICTED
        planes = {}
        for name, plane in zip(heads, prediction.planes, strict=True):
            # The density of large cells is faint: its picture is as bright as it gets.
            full = max(plane[window].max(initial=0), 1) if name == "density" else 255
            planes[name] = _grey(plane[window] / full)
        rows.append(_row({f"{sample.name}: true green, found magenta": image, **planes}))
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def curves(metrics: Path, picture: Path) -> None:
    """Plot the columns of ``metrics.csv``: losses, scores, learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
    losses = [name.removeprefix("train_") for name in columns if name.startswith("train_")]
    scores = [name for name in ("val_dice", "val_ap50", "val_ap75", "val_ap90") if name in columns]
    count = len(losses) + 2
    figure = Figure(figsize=(4.2 * count, 3.4))
    figure.subplots_adjust(left=0.2 / count, right=1 - 0.1 / count, bottom=0.15, top=0.9, wspace=0.25)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count)
    for axis, name in zip(axes, losses, strict=False):
        for part in ("train", "val"):
            axis.plot(columns["step"], columns[f"{part}_{name}"], marker=".", label=part)
        axis.set(title=f"{name} loss" if name != "loss" else "total loss", yscale="log")
    for name in scores:
        axes[-2].plot(columns["step"], columns[name], marker=".", label=name.removeprefix("val_"))
    axes[-2].set(title="validation scores", ylim=(0, 1))
    axes[-1].plot(columns["step"], columns["lr"], marker=".", label="learning rate")
    axes[-1].set(title="learning rate")
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(picture, dpi=90)


def write(path: Path, picture: Picture) -> None:
    """Write a picture as PNG.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    _, data = cv2.imencode(".png", picture[..., ::-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def _row(panels: dict[str, Picture]) -> Picture:
    """Panels side by side under their names."""
    titled = []
    for name, panel in panels.items():
        bar = np.full((BAR, panel.shape[1], 3), 40, np.uint8)
        cv2.putText(bar, name, (4, BAR - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        titled.append(np.pad(np.vstack([bar, panel]), ((0, 2), (0, 2), (0, 0)), constant_values=40))
    return np.hstack(titled)


def _to_rgb(image: NDArray[Any]) -> Picture:
    out: Picture = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()
    return out


def _grey(values: NDArray[Any]) -> Picture:
    levels: Picture = (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _colored(labels: NDArray[Any]) -> Picture:
    """One bright colour a cell; neighbours in number differ."""
    hues = np.stack([labels * 67 % 180, np.full_like(labels, 200), (labels > 0) * 255], axis=2)
    out: Picture = cv2.cvtColor(hues.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return out


def _outlines(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Cell pixels with another cell or background above, below, left or right."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    plane = labels.astype(np.float32)
    edge: NDArray[np.bool_] = (labels > 0) & (cv2.erode(plane, cross) != cv2.dilate(plane, cross))
    return edge

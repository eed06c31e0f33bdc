"""Pictures whose cells are known, as the splitter gets them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from ..backends import Backend
from ..evaluation.contingency import Labels
from ..instances.full_resolution import sources
from ..pipeline import segment
from ..readers import by_size

Planes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: what the model saw in it and what is true."""

    group: str
    #: (K, H, W), one plane for each head of the model.
    planes: Planes
    #: (H, W)
    truth: Labels


def predict_planes(
    backend: Backend,
    files: Mapping[str, Path],
    diameter: float | Literal["auto", "none"] | None = None,
    channels: Sequence[int | str] | None = None,
) -> Iterator[tuple[str, Planes]]:
    """Yield each picture's name and the planes that the splitter gets of it, (K, H, W), small ones first.

    Their scale is the model's, as in a segmentation; `diameter` and `channels` are the options of these
    names.
    """
    with tempfile.TemporaryDirectory(prefix="cellseg-") as folder:
        output = Path(folder) / "seen"
        for name in by_size(files):
            segment(
                files[name],
                backend,
                output=output,
                overwrite=True,
                probabilities=True,
                diameter=diameter,
                channels=channels,
            )
            stored = zarr.open_group(output / "planes.ome.zarr", mode="r")
            yield name, np.asarray(stored["0"])


def at_scale_of(planes: Planes, truth: Labels) -> Labels:
    """Return the true labels at the scale of the planes, by the nearest pixel."""
    if truth.shape == planes.shape[1:]:
        return truth
    rows, columns = (
        sources(np.arange(edge), full, edge) for edge, full in zip(planes.shape[1:], truth.shape, strict=True)
    )
    return truth[np.ix_(rows, columns)]

"""What of a layer is segmented: a picture of two dimensions, in colours or not. Knows nothing of Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture, and where it lies in the window."""

    name: str
    #: Shape (height, width) or (height, width, channels), read as it is indexed where the layer is.
    pixels: Any
    #: Of a pixel, and of the first one's centre: y, x.
    scale: tuple[float, float]
    translate: tuple[float, float]


def chosen_pixels(layer: Any, dims: Any) -> Chosen:
    """Return the picture of a layer; of a stack, the plane that is shown.

    Parameters
    ----------
    layer
        An image layer of napari.
    dims
        The window's dimensions, which say what plane that is.

    Raises
    ------
    UsageError
        It is shown in three dimensions, or across its rows or columns.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    shown = len(data.shape) - (1 if layer.rgb else 0)
    if shown > 2:
        if tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
            raise UsageError(f"{layer.name}: show it as a plane of rows and columns; that one is segmented")
        place = layer.world_to_data(dims.point)[: shown - 2]
        for at, size in zip(place, data.shape[: shown - 2], strict=True):
            data = data[min(max(round(float(at)), 0), size - 1)]
    scale, translate = (
        tuple(float(value) for value in given[-2:]) for given in (layer.scale, layer.translate)
    )
    return Chosen(layer.name, data, (scale[0], scale[1]), (translate[0], translate[1]))

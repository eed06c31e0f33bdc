"""What tables and outlines say of each cell: names, types and values of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..instances import Cells
from ..instances.cells import image_columns
from ..intensity.classes import Classes


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of the cells of an image.

    Attributes
    ----------
    channels
        Names of the channels whose intensity was measured.
    pixel_size
        Micrometres a pixel; columns in µm are there only where it is known.
    stains
        Names of the stains whose optical densities were measured.
    expanded
        Whether nuclei were grown into cells, whose rings are measured too.
    classes
        How cells are told positive; the column ``class`` of the cells points to their names.
    regions
        Names of the regions of interest, to which the column ``roi`` of the cells points.
    """

    channels: Sequence[str] = ()
    pixel_size: float | None = None
    stains: Sequence[str] = ()
    expanded: bool = False
    classes: Classes | None = field(default=None, kw_only=True)
    regions: Sequence[str] = field(default=(), kw_only=True)

    def types(self) -> dict[str, Any]:
        """Return name and Arrow type of every column, in order."""
        f8, i4 = pa.float64(), pa.int32()
        micro = self.pixel_size is not None
        columns = {"label": i4, "centroid_y": f8, "centroid_x": f8}
        if micro:
            columns |= {"centroid_y_um": f8, "centroid_x_um": f8}
        columns |= {"y0": i4, "x0": i4, "y1": i4, "x1": i4, "area": pa.int64()}
        if micro:
            columns |= {"area_um2": f8}
        columns |= {"perimeter": f8}
        if micro:
            columns |= {"perimeter_um": f8}
        columns |= {"eccentricity": f8, "solidity": f8, "mean_probability": f8, "score": f8}
        columns |= dict.fromkeys(self.measures(), f8)
        if self.expanded:
            for name, kind in (("cell_area", pa.int64()), ("cell_perimeter", f8), ("ring_area", pa.int64())):
                columns |= {name: kind} | ({_micro(name): f8} if micro else {})
            columns |= {f"{part}_{name}": f8 for part in ("ring", "cell") for name in self.measures()}
        columns |= {"touches_border": pa.bool_()}
        if self.classes is not None:
            columns |= {"class": pa.string()}
        return columns | ({"roi": pa.string()} if self.regions else {})

    def measures(self) -> list[str]:
        """Return the columns of what was measured of the image, of nuclei."""
        return intensity_columns(self.channels) + stain_columns(self.stains)

    def kept(self) -> dict[str, str]:
        """Return where :class:`~cellseg.runtime.instances.Cells` keeps what has another name in tables."""
        numbered = image_columns(len(self.channels), len(self.stains))
        found = dict(zip(self.measures(), numbered, strict=True))
        if self.expanded:
            of_nuclei = list(found.items())
            for part in ("ring", "cell"):
                found |= {f"{part}_{name}": f"{part}_{kept}" for name, kept in of_nuclei}
        return found

    def values(self, cells: Cells) -> dict[str, npt.NDArray[Any]]:
        """Return the values of every column for some cells.

        What is infinite or no number, as the mean of pixels that are, is not a number: tables hold null for
        it, as pandas does.
        """
        values: dict[str, npt.NDArray[Any]] = dict(cells.columns)
        for name, kept in self.kept().items():
            means = cells.columns[kept]
            values[name] = np.where(np.isfinite(means), means, np.nan)
        if self.pixel_size is not None:
            # A pixel's centre is its index; its corner, half a pixel before, is where µm begin.
            values["centroid_y_um"] = (values["centroid_y"] + 0.5) * self.pixel_size
            values["centroid_x_um"] = (values["centroid_x"] + 0.5) * self.pixel_size
            for name in ("area", "cell_area", "ring_area", "perimeter", "cell_perimeter"):
                if name in values:
                    power = 2 if name.endswith("area") else 1
                    values[_micro(name)] = values[name] * self.pixel_size**power
        # The last name is that of -1.
        if self.classes is not None:
            values["class"] = np.array([*self.classes.names, None], object)[cells.columns["class"]]
        if self.regions:
            values["roi"] = np.array([*self.regions, None], object)[cells.columns["roi"]]
        return {name: values[name] for name in self.types()}


def _micro(name: str) -> str:
    """Return the name of a column in micrometres."""
    return f"{name}_um2" if name.endswith("area") else f"{name}_um"


def intensity_columns(channel_names: Sequence[str]) -> list[str]:
    """Return the column of each channel's mean intensity, each name once."""
    return _columns("mean_intensity", channel_names)


def stain_columns(stains: Sequence[str]) -> list[str]:
    """Return the columns of each stain's mean and of each stain's largest optical density."""
    lower = [stain.lower() for stain in stains]
    return _columns("mean_od", lower) + _columns("max_od", lower)


def _columns(what: str, of: Sequence[str]) -> list[str]:
    """Return ``what`` with each name behind it, of letters and digits, each once."""
    names: list[str] = []
    for number, given in enumerate(of):
        plain = "_".join("".join(c if c.isalnum() else " " for c in given).split()) or str(number)
        name = f"{what}_{plain}"
        names.append(name if name not in names else f"{name}_{number}")
    return names

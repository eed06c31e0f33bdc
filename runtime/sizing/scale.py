"""At what scale a slide is read, and why.

A model knows cells of some sizes. Where the physical scale of both, model and slide, is known, that
decides; else the diameter of the slide's cells, given by the user or found by a :class:`.Survey`. Whatever
the scale, results are in pixels of the slide (:mod:`cellseg.runtime.instances.full_resolution`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..backends import Backend
from ..common.spelling import option
from ..errors import UsageError
from ..geometry.tiling import Region
from ..intensity.channels import ChannelChoice
from ..intensity.normalization import Normalization
from ..model.spec import CellDiameter, ModelSpec
from ..readers import SlideReader
from ..readers.scaled import TOLERANCE, at_scale, enlarged
from .survey import LATER, Survey, Surveyor

#: What a user may say: a diameter in pixels of the slide, ``auto`` to find it, ``none`` to leave the scale
#: alone, or nothing, which is ``auto`` where the model knows its cells' size.
Wanted = float | Literal["auto", "none"] | None
#: Cells must be this much larger than the model's, and this many times as many be expected at half the size,
#: that they are read smaller although the model serves them as they are.
CLEARLY = 1.25
#: ``alone``: nothing was asked. ``physical``: by micrometres a pixel. ``given``, ``found``: by the cells'
#: diameter. ``served``: found, and the model serves it as it is. ``doubt``: no size could be told.
Reason = Literal["alone", "physical", "given", "found", "served", "doubt"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scale at which a slide is read."""

    #: The slide at that scale: itself, where it is read as it is.
    reader: SlideReader
    reason: Reason
    #: Pixels that are read for each pixel of the slide, along a side.
    factor: float = 1.0
    #: Diameter of the slide's cells in its pixels, where given or found.
    diameter: float | None = None
    #: How it was found.
    survey: Survey | None = None


def choose_scale(
    slide: SlideReader,
    backend: Backend,
    wanted: Wanted,
    *,
    pixel_size: float | None,
    rescale: bool,
    eyes: Callable[[], tuple[ChannelChoice, Normalization]],
    within: Region | None = None,
) -> Scaling:
    """Decide at what scale a slide is read.

    Parameters
    ----------
    slide
        The slide; stays in the caller's care and must stay open.
    backend
        The model. Where it must look at the slide it is prepared for a tile of its choice.
    wanted
        What the user says of the cells' diameter.
    pixel_size
        Micrometres a pixel of the slide, where known.
    rescale
        Whether the scale may be changed at all.
    eyes
        Returns how the slide's pixels become the model's; called only where it must look.
    within
        Where on the slide it may look; everywhere by default.

    Raises
    ------
    UsageError
        The diameter does not fit the slide or the model, or the scale would be absurd.
    """
    spec = backend.spec
    known = _check(slide, spec, wanted, rescale)
    if isinstance(wanted, float) and known is not None:
        return _brought(slide, known, wanted, "given")
    if sought := sizes_to_look_for(spec, wanted, pixel_size=pixel_size, rescale=rescale):
        survey = Surveyor(slide, backend, sought, *eyes(), within).run()
        return _by_survey(slide, sought, survey)
    if rescale and spec.pixel_size is not None and pixel_size is not None:
        reader = at_scale(slide, spec.pixel_size, pixel_size)
        return Scaling(reader, "physical", 1.0 if reader is slide else pixel_size / spec.pixel_size)
    return Scaling(slide, "alone")


def sizes_to_look_for(
    spec: ModelSpec, wanted: Wanted, *, pixel_size: float | None, rescale: bool
) -> CellDiameter | None:
    """Return what a model knows of its cells where the size of a slide's must be found, else ``None``.

    Parameters are those of :func:`choose_scale`.
    """
    physical = spec.pixel_size is not None and pixel_size is not None
    return spec.diameter if rescale and wanted in (None, "auto") and not physical else None


def _check(slide: SlideReader, spec: ModelSpec, wanted: Wanted, rescale: bool) -> CellDiameter | None:
    """Refuse a diameter that cannot be worked with; return what the model knows."""
    known = spec.diameter
    if wanted is None or wanted == "none":
        return known
    if known is None:
        raise UsageError(
            f"diameter {_said(wanted)}: model '{spec.name}' does not say how large the cells are that it was "
            f"trained on; leave {option('diameter')} out, or let cellseg-tune measure it"
        )
    if not rescale:
        raise UsageError(
            f"diameter {_said(wanted)} changes the scale, and {option('rescale', False)} forbids that; "
            "leave one of them out"
        )
    if isinstance(wanted, float) and wanted > max(slide.height, slide.width):
        raise UsageError(
            f"{slide.location}: cells of diameter {wanted:g} are larger than the image of "
            f"{slide.height}×{slide.width} pixels; give it in pixels of the image"
        )
    return known


def _by_survey(slide: SlideReader, known: CellDiameter, survey: Survey) -> Scaling:
    found = survey.estimate
    if found is None or not found.certain:
        return Scaling(slide, "doubt", survey=survey)
    if known.low <= found.diameter <= known.high and not _better_smaller(known, found.diameter, survey):
        return Scaling(slide, "served", diameter=found.diameter, survey=survey)
    # No further than was looked.
    return _brought(slide, known, max(found.diameter, known.median / max(LATER)), "found", survey)


def _better_smaller(known: CellDiameter, diameter: float, survey: Survey) -> bool:
    """Whether cells that are large, but that the model serves as they are, are found better in fewer pixels.

    It then sees more of what surrounds them: vesicular nuclei in a stained section, pale between rim and
    clumps, may be twice as many at half the size.
    """
    found = {each.scale: each for each in survey.evidence}
    return diameter > CLEARLY * known.median and found[0.5].finds_more_than(found[1.0], CLEARLY)


def _brought(
    slide: SlideReader, known: CellDiameter, diameter: float, reason: Reason, survey: Survey | None = None
) -> Scaling:
    """Return the scale at which cells of some diameter have the model's."""
    factor = known.median / diameter
    if abs(1 / factor - 1) <= TOLERANCE:
        return Scaling(slide, reason, diameter=diameter, survey=survey)
    reader = enlarged(slide, factor)
    return Scaling(reader, reason, factor, diameter, survey)


def _said(wanted: Wanted) -> str:
    return f"{wanted:g}" if isinstance(wanted, float) else str(wanted)

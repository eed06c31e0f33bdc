"""What :func:`~cellseg.runtime.segment` can be told: every option is said once, here.

From a field of :class:`SegmentOptions` follow the keyword of ``segment()``, the option of
``cellseg-infer``, the column of its manifests, the check of the value, and the entry in ``run.json``
that ``--resume`` compares. This module imports nothing heavy: ``--help`` is made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from ..errors import UsageError
from .kinds import (
    Choice,
    Names,
    Number,
    Option,
    Pair,
    Regions,
    RegionsLike,
    Size,
    Switch,
    Text,
    Whole,
    WordOrFile,
)
from .positive import Positive, PositiveRule

#: How overlapping tiles are joined; ``none`` keeps their cores.
Blend = Literal["none", "hann", "gaussian"]
#: Format of the label image in a folder of results.
LabelFormat = Literal["zarr", "tiff", "png"]
#: Where on a slide to look.
TissueChoice = Literal["auto", "none"]
#: In what the engine shall compute; what ``auto`` takes is the engine's to say.
PrecisionChoice = Literal["auto", "fp32", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """What :func:`~cellseg.runtime.segment` can be told; checked when made.

    It can be kept and used for many images: ``segment(image, options=options)``.

    Attributes
    ----------
    {attributes}

    Raises
    ------
    UsageError
        A value is of the wrong kind or out of its bounds.

    Examples
    --------
    >>> SegmentOptions(min_score=0.2).min_score
    0.2
    >>> SegmentOptions(min_score=2)
    Traceback (most recent call last):
    cellseg.runtime.errors.UsageError: min_score is 2; wanted a number from 0 to 1
    """

    overwrite: Annotated[
        bool, Option(kind=Switch(), group="Results", matters=False, text="Replace earlier results.")
    ] = False
    resume: Annotated[
        bool,
        Option(
            kind=Switch(),
            group="Results",
            matters=False,
            text="Go on where a stopped run was: skip finished images, keep finished bands of the others.",
        ),
    ] = False
    csv: Annotated[bool, Option(kind=Switch(), group="Results", text="Write the table as cells.csv too.")] = (
        False
    )
    labels: Annotated[
        LabelFormat,
        Option(kind=Choice(get_args(LabelFormat)), group="Results", text="Format of the label image."),
    ] = "zarr"
    probabilities: Annotated[
        bool,
        Option(
            kind=Switch(),
            group="Results",
            text="Write planes.ome.zarr too: the network's planes.",
            advanced=True,
        ),
    ] = False
    channels: Annotated[
        Sequence[int | str] | None,
        Option(
            kind=Names(),
            group="Image",
            column=True,
            metavar="LIST",
            text="Channels to read, by name or number: DAPI or 0,2.",
        ),
    ] = None
    pixel_size: Annotated[
        float | None,
        Option(
            kind=Number(above=True, wanted="a number above 0"),
            group="Image",
            flag="mpp",
            column=True,
            text="Micrometres a pixel, where the file does not say or is wrong.",
        ),
    ] = None
    rescale: Annotated[
        bool,
        Option(
            kind=Switch(),
            group="Image",
            advanced=True,
            text="Bring the image to the scale that the model was trained at, where both are known.",
            off="Take pixels as they are, whatever scale the model was trained at.",
        ),
    ] = True
    diameter: Annotated[
        float | Literal["auto", "none"] | None,
        Option(
            kind=Size(),
            group="Image",
            column=True,
            metavar="PX|auto|none",
            text="How large the cells are: the image is read at the scale at which they have the size that "
            "the model knows. auto, the default where it knows one, finds out; none changes nothing.",
        ),
    ] = None
    levels: Annotated[
        tuple[float, float] | None,
        Option(
            kind=Pair("two numbers, black and white"),
            group="Image",
            column=True,
            metavar="BLACK WHITE",
            text="Raw values of black and white, instead of the slide's percentiles.",
        ),
    ] = None
    roi: Annotated[
        RegionsLike | None,
        Option(
            kind=Regions(),
            group="Image",
            column=True,
            metavar="FILE",
            text="Look only inside the areas of a GeoJSON file, as from QuPath, and count by their names; "
            "cells are cut at their edge.",
        ),
    ] = None
    tissue: Annotated[
        TissueChoice,
        Option(
            kind=Choice(get_args(TissueChoice)),
            group="Image",
            column=True,
            text="auto skips the empty glass of large stained slides; none looks everywhere.",
        ),
    ] = "none"
    series: Annotated[
        int | None,
        Option(kind=Whole(), group="Image", column=True, text="Which image of a file with several."),
    ] = None
    page: Annotated[
        int | None, Option(kind=Whole(), group="Image", column=True, text="Which page of a stack.")
    ] = None
    z: Annotated[int | None, Option(kind=Whole(), group="Image", column=True, text="Which depth.")] = None
    t: Annotated[int | None, Option(kind=Whole(), group="Image", column=True, text="Which time.")] = None
    skip_bad_tiles: Annotated[
        bool,
        Option(
            # A result without damaged tiles is the same; one with some is told by its record.
            kind=Switch(),
            group="Image",
            matters=False,
            advanced=True,
            text="Read damaged tiles as black and list them.",
        ),
    ] = False
    min_score: Annotated[
        float | None,
        Option(
            kind=Number(0, 1, wanted="a number from 0 to 1"),
            group="Cells",
            column=True,
            text="Drop cells of a lower score: less finds more cells, and more false ones.",
        ),
    ] = None
    stains: Annotated[
        str,
        Option(
            kind=WordOrFile(("none", "auto", "he", "hdab", "macenko"), ".json"),
            group="Cells",
            column=True,
            metavar="KIND",
            text="Measure optical densities of stains: he, hdab, auto (which of them, or none, by the "
            "picture), macenko (auto, with vectors found in the slide) or a .json file of vectors.",
        ),
    ] = "none"
    expand: Annotated[
        float | None,
        Option(
            kind=Number(0, 200, above=True, wanted="a number of micrometres above 0, at most 200"),
            group="Cells",
            column=True,
            metavar="UM",
            text="Grow nuclei into cells, by UM micrometres or until they meet, and measure these too.",
        ),
    ] = None
    positive: Annotated[
        PositiveRule | str | None,
        Option(
            kind=Positive(),
            group="Cells",
            column=True,
            metavar="RULE",
            text="Tell cells positive: dab=0.2 by the mean in the nucleus, ring:dab=0.2 or cell:CD3=300 by "
            "that of its ring or cell; three thresholds tell 1+, 2+ and 3+.",
        ),
    ] = None
    blend: Annotated[
        Blend,
        Option(
            kind=Choice(get_args(Blend)),
            group="Cells",
            advanced=True,
            text="Average overlapping tiles, for models that are no good near a tile's border.",
        ),
    ] = "none"
    device: Annotated[
        str,
        Option(kind=Text(), group="Computing", metavar="NAME", matters=False, text="auto, cpu or cuda:N."),
    ] = "auto"
    engine: Annotated[
        str | None,
        Option(
            kind=Text(),
            group="Computing",
            flag="backend",
            metavar="NAME",
            matters=False,
            advanced=True,
            text="Insist on an engine, see --devices.",
        ),
    ] = None
    precision: Annotated[
        PrecisionChoice,
        Option(
            kind=Choice(get_args(PrecisionChoice)),
            group="Computing",
            matters=False,  # what the engine computes in is compared itself
            advanced=True,
            text="Arithmetic: auto for the fastest (see docs), fp32 for equal bits everywhere.",
        ),
    ] = "auto"
    tile: Annotated[
        int | None,
        Option(
            kind=Whole(1),
            group="Computing",
            matters=False,
            advanced=True,
            text="Edge of a tile in pixels, halo included.",
        ),
    ] = None
    batch: Annotated[
        int | None,
        Option(kind=Whole(1), group="Computing", matters=False, advanced=True, text="Tiles in a batch."),
    ] = None
    workers: Annotated[
        int | None,
        Option(
            kind=Whole(1),
            group="Computing",
            matters=False,
            advanced=True,
            text="Threads that split and measure cells.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is None and _default(name) is None:
                continue
            try:
                checked = option.kind.check(value)
            except (ValueError, TypeError):
                raise UsageError(f"{name} is {_short(value)}; wanted {option.kind.wanted}") from None
            object.__setattr__(self, name, checked)

    def but(self, **changes: Any) -> Self:
        """Return the same options with some changed.

        Raises
        ------
        UsageError
            There is no such option, or its value does not fit.
        """
        for name in changes:
            if name not in OPTIONS:
                near = difflib.get_close_matches(name, OPTIONS, 1, 0.6)
                advice = f"did you mean '{near[0]}'? " if near else ""
                raise UsageError(f"segment() has no option '{name}'; {advice}it has {', '.join(OPTIONS)}")
        return dataclasses.replace(self, **changes)

    def plain(self) -> dict[str, Any]:
        """Return all options as JSON has them, for the record of a run."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {
            name: None if value is None else OPTIONS[name].kind.plain(value) for name, value in values.items()
        }


def _found() -> dict[str, Option]:
    hints = get_type_hints(SegmentOptions, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(SegmentOptions)}


def flag(name: str, option: Option) -> str:
    """Return the name of an option on the command line and in a manifest, without dashes."""
    return option.flag or name


def _default(name: str) -> Any:
    return SegmentOptions.__dataclass_fields__[name].default


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _attributes() -> str:
    """Return the numpydoc section that lists the options."""
    types = {field.name: str(field.type) for field in dataclasses.fields(SegmentOptions)}
    lines = []
    for name, option in OPTIONS.items():
        kind = types[name].removeprefix("Annotated[").partition(", Option(")[0]
        lines += [f"{name} : {kind}, default {_default(name)!r}", f"    {option.text}"]
    return "\n    ".join(lines)


#: What there is, by its name in Python.
OPTIONS: Mapping[str, Option] = _found()
if SegmentOptions.__doc__ is not None:  # python -OO
    SegmentOptions.__doc__ = SegmentOptions.__doc__.replace("{attributes}", _attributes())

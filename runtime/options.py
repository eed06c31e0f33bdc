"""What :func:`~cellseg.runtime.segment` can be told: every option is said once, here.

From a field of :class:`SegmentOptions` follow the keyword of ``segment()``, the option of
``cellseg-infer``, the column of its manifests, the check of the value, and the entry in ``run.json``
that ``--resume`` compares. This module imports nothing heavy: ``--help`` is made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args, get_type_hints

from .errors import UsageError

#: How overlapping tiles are joined; ``none`` keeps their cores.
Blend = Literal["none", "hann", "gaussian"]
#: Format of the label image in a folder of results.
LabelFormat = Literal["zarr", "tiff", "png"]
#: Where on a slide to look.
TissueChoice = Literal["auto", "none"]
#: In what the engine shall compute; what ``auto`` takes is the engine's to say.
PrecisionChoice = Literal["auto", "fp32", "bf16", "int8"]
#: A GeoJSON file; or polygons, each an array of shape (n, 2) with x and y, or a list of such rings.
RegionsLike = str | os.PathLike[str] | Sequence[Any]

_Value = TypeVar("_Value")


class Kind(Generic[_Value]):
    """What values an option takes: how one is read from text and checked."""

    #: Completes "wanted …".
    wanted: str

    def read(self, text: str) -> _Value:
        """Return the value that a text of the command line or of a manifest stands for.

        Raises
        ------
        ValueError
            It stands for none.
        """
        return self.check(text)

    @abstractmethod
    def check(self, value: Any) -> _Value:
        """Return a value as it is kept.

        Raises
        ------
        ValueError, TypeError
            It is not of this kind.
        """

    def plain(self, value: _Value) -> Any:
        """Return a value as JSON has it, for the record of a run."""
        return value


@dataclass(frozen=True, slots=True)
class Switch(Kind[bool]):
    """On or off."""

    wanted: str = "True or False"

    def check(self, value: Any) -> bool:
        """Accept True and False, also NumPy's."""
        if value not in (True, False):
            raise ValueError
        return bool(value)


@dataclass(frozen=True, slots=True)
class Text(Kind[str]):
    """A name."""

    wanted: str = "a name"

    def check(self, value: Any) -> str:
        """Accept text that is not empty."""
        if not isinstance(value, str) or not value:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Choice(Kind[Any]):
    """One of several names."""

    names: tuple[str, ...]

    @property
    def wanted(self) -> str:  # type: ignore[override]  # made from the names
        """The names."""
        return " or ".join(filter(None, (", ".join(self.names[:-1]), self.names[-1])))

    def check(self, value: Any) -> str:
        """Accept one of the names."""
        if value not in self.names:
            raise ValueError
        return str(value)


@dataclass(frozen=True, slots=True)
class Whole(Kind[int]):
    """A whole number."""

    low: int = 0

    @property
    def wanted(self) -> str:  # type: ignore[override]  # made from the bound
        """The bound."""
        return f"a whole number from {self.low}"

    def read(self, text: str) -> int:
        """Read digits."""
        return self.check(int(text))

    def check(self, value: Any) -> int:
        """Accept any integer type from the lowest one on."""
        if isinstance(value, bool) or operator.index(value) < self.low:
            raise ValueError
        return operator.index(value)


@dataclass(frozen=True, slots=True)
class Number(Kind[float]):
    """A finite number between two bounds."""

    low: float = 0.0
    high: float = math.inf
    #: Whether the lower bound itself is excluded.
    above: bool = False
    wanted: str = "a number"

    def read(self, text: str) -> float:
        """Read a number with a decimal point."""
        return self.check(float(text))

    def check(self, value: Any) -> float:
        """Accept any real number between the bounds."""
        number = float(value)
        if not (math.isfinite(number) and self.low <= number <= self.high) or (
            self.above and number == self.low
        ):
            raise ValueError
        return number


@dataclass(frozen=True, slots=True)
class Pair(Kind[tuple[float, float]]):
    """Two finite numbers."""

    wanted: str = "two numbers"

    def read(self, text: str) -> tuple[float, float]:
        """Read numbers with a space, comma or semicolon between them."""
        return self.check(text.replace(";", " ").replace(",", " ").split())

    def check(self, value: Any) -> tuple[float, float]:
        """Accept a sequence of two."""
        low, high = (float(item) for item in value)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError
        return low, high

    def plain(self, value: tuple[float, float]) -> list[float]:
        """As JSON has it."""
        return list(value)


@dataclass(frozen=True, slots=True)
class Size(Kind["float | str"]):
    """A number of pixels above 0, or a word in its place."""

    words: tuple[str, ...] = ("auto", "none")

    @property
    def wanted(self) -> str:  # type: ignore[override]  # made from the words
        """The words."""
        return f"a number of pixels above 0, {' or '.join(self.words)}"

    def read(self, text: str) -> float | str:
        """Read a number, or one of the words."""
        return self.check(text if text in self.words else float(text))

    def check(self, value: Any) -> float | str:
        """Accept a finite number above 0, or one of the words."""
        if isinstance(value, str):
            if value not in self.words:
                raise ValueError
            return value
        if isinstance(value, bool) or not (math.isfinite(float(value)) and float(value) > 0):
            raise ValueError
        return float(value)


@dataclass(frozen=True, slots=True)
class Names(Kind[tuple[int | str, ...]]):
    """Names or numbers of several things."""

    wanted: str = "names or numbers"

    def read(self, text: str) -> tuple[int | str, ...]:
        """Read names with a comma or semicolon between them."""
        return self.check([part.strip() for part in text.replace(";", ",").split(",")])

    def check(self, value: Any) -> tuple[int | str, ...]:
        """Accept one or a sequence of them."""
        items = [value] if isinstance(value, str | int) else list(value)
        if not items or "" in items:
            raise ValueError
        return tuple(item if isinstance(item, str) else operator.index(item) for item in items)

    def plain(self, value: tuple[int | str, ...]) -> list[str]:
        """Write numbers as the command line does."""
        return [str(item) for item in value]


@dataclass(frozen=True, slots=True)
class Regions(Kind[RegionsLike]):
    """A file of polygons, or polygons; what is in it is checked when the image's size is known."""

    wanted: str = "a path"

    def check(self, value: Any) -> RegionsLike:
        """Accept a path or a sequence."""
        if not isinstance(value, str | os.PathLike) and not hasattr(value, "__len__"):
            raise TypeError
        return value  # type: ignore[no-any-return]

    def plain(self, value: RegionsLike) -> Any:
        """Name the file, if it is one; its content is told apart by its digest."""
        return os.fspath(value) if isinstance(value, str | os.PathLike) else f"{len(value)} polygons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """All that is to be said of an option beside its name, type and default."""

    #: What it does, for Python and the command line alike.
    text: str
    kind: Kind[Any]
    #: Heading in ``--help``.
    group: Literal["Results", "Image", "Cells", "Computing"]
    #: Name on the command line and in a manifest, where it is another than in Python.
    flag: str = ""
    #: Help of ``--no-NAME``, for a switch that is on unless that is given.
    off: str = ""
    #: What stands for the value in ``--help``.
    metavar: str | None = None
    #: Whether a manifest may have a column for it.
    column: bool = False
    #: Whether results made with another value are other results.
    matters: bool = True
    #: Whether most users never need it.
    advanced: bool = False


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
            text="Look only inside the areas of a GeoJSON file, as from QuPath; cells are cut at their edge.",
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
            text="Arithmetic: fp32 for equal bits everywhere, int8 for a model's twin in eight bits.",
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

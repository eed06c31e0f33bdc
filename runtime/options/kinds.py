"""What an option may be: how its value is read from text, checked, and written down."""

from __future__ import annotations

import math
import operator
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from ..common.names import readable

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
class WordOrFile(Kind[str]):
    """One of several words, or a file with a certain ending."""

    words: tuple[str, ...]
    suffix: str

    @property
    def wanted(self) -> str:  # type: ignore[override]  # made from the words
        """The words."""
        return f"{', '.join(self.words)} or a {self.suffix} file"

    def check(self, value: Any) -> str:
        """Accept one of the words, or a path with the ending."""
        text = os.fspath(value)
        if not isinstance(text, str):
            raise TypeError
        if text not in self.words and not text.lower().endswith(self.suffix):
            raise ValueError
        return text

    def plain(self, value: str) -> str:
        """Name the file so that any program can read it; its content is told apart by its digest."""
        return readable(value)


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
        return (
            readable(os.fspath(value)) if isinstance(value, str | os.PathLike) else f"{len(value)} polygons"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Everything about an option but its name, type and default."""

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

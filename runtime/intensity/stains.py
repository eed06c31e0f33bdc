"""Optical densities of stains by colour deconvolution.

Light that passes a stain is absorbed by Beer–Lambert's law: the optical density of each colour,
``-log10(value / background)``, is the sum over the stains of the amount of the stain times its vector. With
three vectors that are known the amounts follow by a matrix (Ruifrok and Johnston, *Quantification of
histochemical staining by color deconvolution*, 2001).

Units are those of QuPath: decimal logarithms, vectors of length one, and a third vector at right angles to
the others where there are two stains. Amounts are not cut off at zero, so that the mean of an unstained cell
is about nothing rather than the mean of the noise above nothing. Values are kept in fixed point: their sums
are exact in any order, so no result depends on how a slide was cut.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.bounded import parse_json, read_bytes
from ..errors import UsageError

#: Fixed-point units of an optical density of one.
UNIT = 1 << 20
#: Entries of a row of the table that kernels read: this many stains fit, and a row is one vector register.
LANES = 4
#: Vectors that lie closer together than this (determinant of three of length one) cannot be told apart.
FLATTEST = 0.02
#: Longest name of a stain in letters.
LONGEST = 64

HEMATOXYLIN = ("Hematoxylin", (0.65, 0.70, 0.29))
#: The table of Ruifrok and Johnston, as scikit-image has it.
DAB = ("DAB", (0.27, 0.57, 0.78))
#: QuPath's: Ruifrok's eosin, (0.07, 0.99, 0.11), is redder than that of most slides.
EOSIN = ("Eosin", (0.2159, 0.8012, 0.5581))
#: Stains by the name of their combination.
KNOWN = {"he": (HEMATOXYLIN, EOSIN), "hdab": (HEMATOXYLIN, DAB)}


@dataclass(frozen=True, slots=True)
class Stains:
    """The stains of a slide.

    Attributes
    ----------
    kind
        Which they are: ``he``, ``hdab``, or the name of the file they come from.
    names
        Two or three.
    vectors
        Optical densities of each in red, green and blue; of any length above 0.
    background
        Value of red, green and blue where there is no stain; ``None``: the highest of the type.
    estimated
        Whether the vectors were found in the slide.

    Raises
    ------
    UsageError
        They cannot be told apart.
    """

    kind: str
    names: tuple[str, ...]
    vectors: tuple[tuple[float, float, float], ...]
    background: tuple[float, float, float] | None = None
    estimated: bool = False

    def __post_init__(self) -> None:
        if abs(np.linalg.det(self.matrix)) < FLATTEST:
            raise UsageError(
                f"{self.kind}: the vectors of {' and '.join(self.names)} are nearly the same; give vectors "
                "that differ"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def known(cls, kind: str) -> Stains:
        """Return the stains of a combination in :data:`KNOWN`, with their published vectors."""
        stains = KNOWN[kind]
        return cls(kind, tuple(name for name, _ in stains), tuple(vector for _, vector in stains))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Shape (3, 3): the vectors, of length one, as rows; the last of two is at right angles to both."""
        rows = np.array(self.vectors, np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if len(rows) == 2:
            third = np.cross(rows[0], rows[1])
            rows = np.vstack([rows, third / max(float(np.linalg.norm(third)), 1e-9)])
        return rows

    def amounts(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the optical density of each stain, the plain reference of what the kernels do.

        Parameters
        ----------
        pixels
            Shape (…, 3): raw red, green and blue, uint8 or uint16.

        Returns
        -------
        ndarray, shape (…, len(self))
        """
        unmixed: NDArray[np.float64] = self.densities(pixels) @ np.linalg.inv(self.matrix)
        return unmixed[..., : len(self)]

    def densities(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the optical density of each colour, at least 0; a value of 0 counts as 1."""
        white = self.white(pixels.dtype)
        density: NDArray[np.float64] = np.maximum(np.log10(white / np.maximum(pixels, 1.0)), 0)
        return density

    def white(self, dtype: np.dtype[Any]) -> NDArray[np.float64]:
        """Return the value of red, green and blue where there is no stain."""
        return np.array(self.background or (float(np.iinfo(dtype).max),) * 3)

    def table(self, dtype: np.dtype[Any]) -> NDArray[np.int32]:
        """Return what each value of each colour adds to the amount of each stain.

        Returns
        -------
        ndarray, shape (3, values, LANES)
            In :data:`UNIT`; zero for lanes without a stain. The amount of a stain in a pixel is the sum of
            three entries.
        """
        levels = int(np.iinfo(dtype).max) + 1
        values = np.repeat(np.arange(levels)[:, None], 3, axis=1).astype(dtype)
        density = self.densities(values)
        inverse = np.linalg.inv(self.matrix)
        table = np.zeros((3, levels, LANES), np.int32)
        for colour in range(3):
            added = density[:, colour, None] * inverse[colour, None, : len(self)]
            table[colour, :, : len(self)] = np.rint(added * UNIT)
        return table


def read_stains(path: str | os.PathLike[str]) -> Stains:
    """Read stains from a JSON file.

    Either ``{"stains": {"Hematoxylin": [0.65, 0.70, 0.29], "DAB": [0.27, 0.57, 0.78]}, "background": [255,
    255, 255]}`` with two or three stains and, where it is not the highest value of the type, the background;
    or what QuPath's scripts pass to ``setColorDeconvolutionStains``.

    Raises
    ------
    UsageError
        The file cannot be read, or holds something else.
    """
    wanted = (
        'wanted JSON as {"stains": {"Hematoxylin": [0.65, 0.70, 0.29], "DAB": [0.27, 0.57, 0.78]}, '
        '"background": [255, 255, 255]}, or that of QuPath'
    )
    name = os.fspath(path)
    try:
        given = parse_json(read_bytes(Path(name)))
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{name}: cannot be read ({why}); give auto, he, hdab, macenko or a file") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name}: is no JSON; {wanted}") from None
    try:
        stains, background = _content(given)
        names = tuple(text.strip() for text in stains)
        vectors = tuple(_triple(vector) for vector in stains.values())
        if not 2 <= len(names) <= 3:
            raise ValueError(f"{len(names)} stains, and two or three can be told apart")
        if any(not text or len(text) > LONGEST for text in names):
            raise ValueError("a stain without a name, or with a very long one")
        if len({text.casefold() for text in names}) < len(names):
            raise ValueError("two stains of one name")
        if any(np.linalg.norm(vector) < 1e-3 or np.max(np.abs(vector)) > 1e3 for vector in vectors):
            raise ValueError("a vector that is zero, or too large")
        white = None if background is None else _triple(background)
        if white is not None and not all(1 < value <= 65535 for value in white):
            raise ValueError(f"a background of {white}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found = f"there is no {error}" if isinstance(error, KeyError) else f"it has {error}"
        raise UsageError(f"{name}: {found}; {wanted}") from None
    return Stains(Path(name).name, names, vectors, white)


def _content(given: Any) -> tuple[dict[str, Any], Any]:
    """Return vectors by name, and the background, of our form or QuPath's."""
    if not isinstance(given, dict):
        raise TypeError("no object in it")
    if "Stain 1" not in given:
        stains = given["stains"]
        if not isinstance(stains, dict):
            raise TypeError('something else than vectors by name under "stains"')
        return stains, given.get("background")
    stains = {}
    for number in ("1", "2", "3"):
        if f"Stain {number}" in given:
            name = str(given[f"Stain {number}"])
            if name in stains:
                raise ValueError("two stains of one name")
            stains[name] = str(given[f"Values {number}"]).split()
    stains.pop("Residual", None)
    return stains, str(given["Background"]).split() if "Background" in given else None


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    if not np.isfinite([red, green, blue]).all():
        raise ValueError("a number that is not finite")
    return red, green, blue

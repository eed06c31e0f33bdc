"""Which stains a slide has, and what their vectors are, from a sample of its pixels.

Everything is computed from one sample of pixels whose place depends on the slide's size only, without
chance, so that the same slide has the same stains on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..common.spelling import option
from ..errors import UsageError
from .channels import are_colours, list_channels
from .stains import KNOWN, Stains, read_stains

#: Pixels that are looked at.
SAMPLE = 1_000_000
#: A pixel holds stain from this optical density on, in the colour that is absorbed most (Macenko's beta).
STAINED = 0.15
#: Fewest such pixels that a decision is made from.
FEWEST = 400
#: A bright field is brighter than this part of the background in a tenth of its pixels.
BRIGHT = 0.45
#: Half of the pixels of fluorescence are darker than this part.
DARK = 0.25
#: Colour that stains have: the spread of the densities over their sum, in the middle.
COLOURED = 0.05
#: Fewer of the stained pixels than this part are pink by noise.
PINK = 5e-4
#: Percentiles of the angles that are taken for the pure stains (Macenko's alpha).
ALPHA = 1.0
#: An estimated vector that lies farther than this from the published one, in degrees, is not that stain.
FARTHEST = 30.0
#: Found vectors that lie closer together than this, in degrees, are of one stain.
NEAREST = 8.0

#: What a picture shows: stains of :data:`~.stains.KNOWN`, fluorescence, or neither.
Kind = Literal["he", "hdab", "dark", "none"]


def choose_stains(
    asked: str,
    names: Sequence[str],
    dtype: np.dtype[Any],
    path: Path | str,
    sample: Callable[[int], NDArray[Any]],
) -> tuple[Stains | None, str | None]:
    """Return the stains of a slide, as asked for.

    Parameters
    ----------
    asked
        ``none``; ``auto``: H&E or H-DAB, as the slide looks; ``macenko``: the same, with vectors found in the
        slide; ``he``, ``hdab``; or a file as :func:`~.stains.read_stains` reads it.
    names, dtype, path
        The slide's channels, their type, and its file, for messages.
    sample
        Returns about this many pixels of the slide, shape (h, w, channels).

    Returns
    -------
    Stains or None
        ``None``: none are measured.
    str or None
        What the user should know about the choice.

    Raises
    ------
    UsageError
        The slide has no stains that could be measured, and ``auto`` was not what was asked for; or the file
        is none of stains.
    """
    if asked == "none":
        return None, None
    free = asked in ("auto", "macenko")
    given = None if free else Stains.known(asked) if asked in KNOWN else read_stains(asked)
    if not are_colours(names) or dtype.kind != "u":
        what = f"channels {list_channels(names)}" if not are_colours(names) else f"values of {dtype.name}"
        why = f"stains are measured in red, green and blue of 8 or 16 bits, and it has {what}"
    else:
        pixels = sample(SAMPLE)
        white = (given or Stains.known("he")).white(dtype)
        seen = looks_like(pixels, white)
        if given is not None and seen != "dark":
            return given, None
        if given is None and seen in KNOWN:
            return _vectors(pixels, Stains.known(seen), estimate=asked == "macenko")
        why = "it is dark, as fluorescence is, and stains are measured in bright field"
        if seen == "none":
            why = "no stain was found in it: it is grey, or has hardly a coloured pixel"
    if asked != "auto":
        raise UsageError(f"{path}: {option('stains', asked)}: {why}; leave it away, or take auto")
    return None, f"no optical densities were measured: {why}"


def _vectors(pixels: NDArray[Any], known: Stains, *, estimate: bool) -> tuple[Stains, str | None]:
    """Return stains with the published vectors or those of the slide, and what the user should know."""
    called = " and ".join(known.names)
    told = f"optical densities are of {called}, by the picture's colours; where that is wrong say "
    told += f"{option('stains', 'he' if known.kind == 'hdab' else 'hdab')} or give a file"
    if not estimate:
        return known, told
    found = macenko(pixels, known)
    if found is None:
        return (
            known,
            f"{told}; vectors found in the slide are not those of {called}: the published ones serve",
        )
    return found, told


def looks_like(pixels: NDArray[Any], white: NDArray[np.float64]) -> Kind:
    """Tell what a sample of a picture shows.

    Stained pixels that absorb green most are pink, as eosin; those that absorb blue most are brown, as DAB;
    haematoxylin, which absorbs red or green, tells nothing. What there is more of decides; where there is
    neither, as in a negative control, it is H-DAB without DAB.

    Parameters
    ----------
    pixels
        Shape (…, 3): red, green and blue.
    white
        Their background.

    Returns
    -------
    str
        ``dark`` for what looks like fluorescence, ``none`` for a bright field without colours, or for too few
        stained pixels.
    """
    share = pixels.reshape(-1, 3) / white
    luma = share.mean(axis=1)
    if np.median(luma) < DARK:
        return "dark"
    if np.percentile(luma, 90) < BRIGHT:
        return "none"
    density = _stained(pixels, white)
    if len(density) < FEWEST:
        return "none"
    spread = np.ptp(density, axis=1) / density.sum(axis=1)
    if np.median(spread) < COLOURED:
        return "none"
    red, green, blue = density.T
    brown = int(np.count_nonzero((blue > 1.05 * green) & (blue > 1.3 * red)))
    pink = int(np.count_nonzero((green > 1.05 * blue) & (green > 1.5 * red)))
    return "he" if pink > max(brown, PINK * len(density)) else "hdab"


def macenko(pixels: NDArray[Any], stains: Stains) -> Stains | None:
    """Find the vectors of two stains in a sample of their slide.

    The stained pixels' densities lie in a plane; the pure stains are the outermost directions in it.

    Source: M. Macenko et al., *A method for normalizing histology slides for quantitative analysis*, 2009.

    Parameters
    ----------
    pixels
        Shape (…, 3): red, green and blue.
    stains
        Two stains: their names, background, and published vectors, to tell which of the found ones is which.

    Returns
    -------
    Stains or None
        ``None`` where what was found is not these two stains: too few stained pixels, vectors far from the
        published ones, or two that are nearly the same, as where only one of the stains is there.
    """
    density = _stained(pixels, stains.white(pixels.dtype))
    density = density[(density > STAINED / 3).all(axis=1)]
    if len(density) < FEWEST:
        return None
    _, vectors = np.linalg.eigh(density.T @ density / len(density))
    plane = vectors[:, [2, 1]]  # by falling eigenvalue
    plane = plane * np.where(plane[:, :1].sum() < 0, -1.0, 1.0)
    across = density @ plane
    angles = np.arctan2(across[:, 1], across[:, 0])
    ends = np.percentile(angles, [ALPHA, 100 - ALPHA])
    found = [plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in ends]
    known = stains.matrix[:2]
    if _angle(found[0], known[0]) + _angle(found[1], known[1]) > _angle(found[1], known[0]) + _angle(
        found[0], known[1]
    ):
        found.reverse()
    far = max(_angle(vector, wanted) for vector, wanted in zip(found, known, strict=True))
    if far > FARTHEST or _angle(*found) < NEAREST:
        return None
    rounded = tuple((float(r), float(g), float(b)) for r, g, b in np.round(found, 4))
    return replace(stains, vectors=rounded, estimated=True)


def _stained(pixels: NDArray[Any], white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the optical densities of the pixels that hold stain, shape (n, 3)."""
    flat = pixels.reshape(-1, 3)
    density = np.maximum(np.log10(white / np.maximum(flat, 1.0)), 0)
    stained: NDArray[np.float64] = density[density.max(axis=1) > STAINED]
    return stained


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the angle between two vectors in degrees."""
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

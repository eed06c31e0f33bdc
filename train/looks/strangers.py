"""Things in a section that are no nuclei and look like them: each is drawn where no nucleus is.

A section is three planes of concentration, (3, H, W): haematoxylin, diaminobenzidine (DAB), eosin. Where
`eosin` is false the section is immunostained and has none.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .section import Field, Plane, blur, grain


def lumen(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Holes and bare glass, clear or with an edge that bends the light."""
    away, _ = field.around
    hole = (grain(field.shape, rng.uniform(12, 60), rng) > rng.uniform(0.5, 2)) & (away > 2)
    clear = blur(hole.astype(np.float32), rng.uniform(0.6, 2))
    planes = planes * (1 - clear * (1 - field.soft))
    if rng.random() < 0.4:
        edge = cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        bent = blur(edge.astype(np.float32), rng.uniform(0.7, 1.6)) * (1 - field.soft)
        planes = planes + (rng.uniform(0, 0.6, 3) * (1, 0.4, eosin))[:, None, None] * bent
    return planes


def blood(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Red blood cells: discs a little smaller than nuclei, pale in the middle, in heaps between the cells."""
    shape = field.shape
    disc, middle = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    radius = field.diameter * rng.uniform(0.3, 0.45)
    heap = rng.uniform(0, min(shape), 2)
    spread = rng.uniform(2, 8) * radius
    for _ in range(int(rng.integers(4, 40))):
        y, x = rng.normal(heap, spread)
        axes = (radius * rng.uniform(0.8, 1.1), radius * rng.uniform(0.5, 1.1))
        box = ((float(x), float(y)), (2 * axes[0], 2 * axes[1]), float(rng.uniform(0, 180)))
        cv2.ellipse(disc, box, float(rng.uniform(0.6, 1)), -1)
        cv2.ellipse(middle, (box[0], (axes[0], axes[1]), box[2]), 1.0, -1)
    cells = blur(
        (disc - np.float32(rng.uniform(0, 0.5)) * np.minimum(middle, disc)).astype(np.float32), 0.8
    ) * (1 - field.soft)
    stain = rng.uniform(0.4, 1.1)
    amounts = np.array([rng.uniform(0, 0.15), 0.0 if eosin else rng.uniform(0, 0.3), stain if eosin else 0.1])
    mixed: Plane = planes * (1 - 0.7 * np.minimum(cells, 1)) + amounts[:, None, None] * cells
    return mixed


def keratin(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Layers of horn or folded membranes: dark bands that wind, where no nucleus is near."""
    shape = field.shape
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    across = rows * np.cos(angle) + columns * np.sin(angle)
    wound = across + rng.uniform(5, 25) * grain(shape, rng.uniform(15, 40), rng)
    bands = np.clip(np.sin(wound / rng.uniform(1.5, 6)) - rng.uniform(-0.5, 0.6), 0, None)
    away, _ = field.around
    where = (grain(shape, 40, rng) > rng.uniform(0, 1.2)) & (away > 0.4 * field.diameter)
    bands = bands * blur(where.astype(np.float32), 3) * (0.8 + 0.4 * grain(shape, 3, rng))
    amounts = rng.uniform(0, 1, 3) * (0.9, 0.0 if eosin else 0.4, 0.9 if eosin else 0.1)
    mixed: Plane = planes + amounts[:, None, None] * np.clip(bands, 0, 1.5)
    return mixed


def mucus(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Pale blue pools, smooth or stringy."""
    shape = field.shape
    pool = blur((grain(shape, rng.uniform(20, 50), rng) > rng.uniform(0, 1.2)).astype(np.float32), 4)
    strings = np.clip(0.6 + 0.5 * grain(shape, rng.uniform(2, 6), rng, rng.uniform(0, 180), 4), 0, 2)
    planes = planes * (1 - 0.6 * pool * (1 - field.soft))
    planes[0] += rng.uniform(0.05, 0.4) * pool * strings * (1 - field.soft)
    return planes


def pigment(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Specks of dirt, melanin or formalin pigment: brown or black, much smaller than nuclei."""
    shape = field.shape
    specks = np.zeros(shape, np.float32)
    heap, spread = rng.uniform(0, min(shape), 2), rng.uniform(10, 120)
    for y, x in rng.normal(heap, spread, (int(rng.integers(3, 60)), 2)):
        size = max(1, round(field.diameter * rng.uniform(0.02, 0.12)))
        cv2.circle(specks, (int(x), int(y)), size, float(rng.uniform(0.4, 1)), -1)
    amounts = (rng.uniform(0.2, 1.2, 3) * (1, 1, eosin)).astype(np.float32)
    mixed: Plane = planes + amounts[:, None, None] * blur(specks, 0.7) * (1 - field.soft)
    return mixed


def fibres(field: Field, planes: Plane, eosin: bool, rng: np.random.Generator) -> Plane:
    """Bundles of collagen: long streaks of eosin, or of whatever stains the ground."""
    shape = field.shape
    long = grain(shape, rng.uniform(1, 2.5), rng, rng.uniform(0, 180), rng.uniform(6, 14))
    bundle = np.clip(long - rng.uniform(-0.3, 1), 0, 2.5) * (1 - field.soft)
    amounts = np.array([0.25, 0.0, 0.7]) if eosin else np.array([0.25, 0.35, 0.0])
    mixed: Plane = planes + (rng.random(3) * amounts)[:, None, None] * bundle
    return mixed


#: All of them, and how often each is drawn.
STRANGERS: tuple[tuple[Callable[[Field, Plane, bool, np.random.Generator], Plane], float], ...] = (
    (lumen, 0.45),
    (blood, 0.25),
    (keratin, 0.15),
    (mucus, 0.15),
    (pigment, 0.15),
    (fibres, 0.4),
)

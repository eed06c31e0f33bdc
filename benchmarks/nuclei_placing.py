"""Where the nuclei of a made slide lie, and what each looks like: known before a pixel is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Edge of the squares in which cells are placed, in pixels.
BLOCK = 512
#: Largest distance of a nucleus' edge from its centre, in pixels.
REACH = 26
#: Edge of the texture that the nuclei are cut from, in pixels.
GRAIN = 900


@dataclass(frozen=True, slots=True)
class Nuclei:
    """All cells of a slide; each array has one entry a cell. Cell i has the label i + 1."""

    #: Centre in pixels.
    y: Floats
    x: Floats
    #: Half axes in pixels, and direction of the long one in radians.
    long: Floats
    short: Floats
    angle: Floats
    #: Depth and phase of the bulges of order 2 and 3 of the outline.
    bulge: Floats
    phase: Floats
    #: Mean brightness of the nucleus; 1 is typical.
    light: Floats
    #: Corner of its piece of the texture.
    texture: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


def place(height: int, width: int, cells: int, seed: int) -> Nuclei:
    """Place cells, some in touching groups, none on top of another.

    Parameters
    ----------
    height, width
        Size of the slide in pixels.
    cells
        How many to place; fewer are where there is no room.
    seed
        Decides everything.
    """
    rng = np.random.default_rng([seed, 1])
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    # Tissue is denser here than there: a smooth field of weights.
    field = cv2.resize(
        rng.random((max(2, rows // 3), max(2, columns // 3))).astype(np.float32),
        (columns, rows),
        interpolation=cv2.INTER_CUBIC,
    )
    weight = 0.35 + np.clip(field, 0, 1)
    inside = np.minimum(BLOCK, height - np.arange(rows) * BLOCK)[:, None] * np.minimum(
        BLOCK, width - np.arange(columns) * BLOCK
    )
    weight = weight * inside
    quota = rng.multinomial(cells, (weight / weight.sum()).ravel()).reshape(rows, columns)
    placed: dict[tuple[int, int], Floats] = {}
    parts = []
    missing = 0
    for i in range(rows):
        for j in range(columns):
            near = [
                placed[key]
                for key in ((i - 1, j - 1), (i - 1, j), (i - 1, j + 1), (i, j - 1))
                if key in placed
            ]
            box = (i * BLOCK, j * BLOCK, min(height, (i + 1) * BLOCK), min(width, (j + 1) * BLOCK))
            found = _fill(np.random.default_rng([seed, 2, i, j]), box, int(quota[i, j]) + missing, near)
            # What one square could not take goes to the next, within reason.
            missing = min(int(quota[i, j]) + missing - len(found), 200)
            placed[i, j] = found
            parts.append(found)
    table = np.concatenate(parts) if parts else np.zeros((0, 5), np.float32)
    n = len(table)
    rng = np.random.default_rng([seed, 3])
    light = np.exp(rng.normal(0, 0.3, n))
    light[rng.random(n) < 0.02] *= 2.2  # condensed: dividing or dying
    y, x, long, short, turned = (table[:, column].copy() for column in range(5))
    return Nuclei(
        y,
        x,
        long,
        short,
        turned,
        bulge=(rng.random((n, 2)) * (0.10, 0.05)).astype(np.float32),
        phase=rng.uniform(0, 2 * np.pi, (n, 2)).astype(np.float32),
        light=light.astype(np.float32),
        texture=rng.integers(0, GRAIN, (n, 2)),
    )


def _fill(rng: np.random.Generator, box: tuple[int, int, int, int], count: int, near: list[Floats]) -> Floats:
    """Place cells in one square; returns rows of (y, x, long, short, angle)."""
    taken = np.concatenate([np.zeros((0, 5), np.float32), *near])
    start = len(taken)
    taken = np.concatenate([taken, np.zeros((count, 5), np.float32)])
    filled = start
    y0, x0, y1, x1 = box
    # A neighbourhood has one type of cell, with a spread.
    typical = rng.uniform(8, 13)
    for _ in range(count * 8):
        if filled == start + count:
            break
        size = float(np.clip(typical * np.exp(rng.normal(0, 0.22)), 4.2, 20))
        stretch = rng.uniform(1.0, 1.55)
        long, short = size * np.sqrt(stretch), size / np.sqrt(stretch)
        angle = rng.uniform(0, np.pi)
        if filled > start and rng.random() < 0.45:  # touching one that is there
            other = taken[rng.integers(start, filled)]
            way = rng.uniform(0, 2 * np.pi)
            gap = _radius(other, way) + _radius(np.array([0, 0, long, short, angle]), way + np.pi)
            gap *= rng.uniform(0.97, 1.12)
            y, x = other[0] + gap * np.sin(way), other[1] + gap * np.cos(way)
        else:
            y, x = rng.uniform(y0, y1), rng.uniform(x0, x1)
        if not (y0 <= y < y1 and x0 <= x < x1):
            continue
        candidate = np.array([y, x, long, short, angle], np.float32)
        if filled and _collides(candidate, taken[:filled]):
            continue
        taken[filled] = candidate
        filled += 1
    return taken[start:filled].copy()


def _radius(cell: npt.NDArray[np.floating], way: float | Floats) -> npt.NDArray[np.floating]:
    """Return the distance from a cell's centre to its elliptical edge in a direction."""
    turned = way - cell[..., 4]
    return 1 / np.sqrt((np.cos(turned) / cell[..., 2]) ** 2 + (np.sin(turned) / cell[..., 3]) ** 2)


def _collides(candidate: Floats, others: Floats) -> bool:
    """Return whether a cell lies on another by more than a touch."""
    dy, dx = candidate[0] - others[:, 0], candidate[1] - others[:, 1]
    distance = np.hypot(dy, dx)
    close = distance < 2 * REACH
    if not close.any():
        return False
    others, distance = others[close], distance[close]
    way = np.arctan2(dy[close], dx[close])
    room = _radius(others, way) + _radius(candidate, way + np.pi)
    return bool((distance < 0.93 * room).any())

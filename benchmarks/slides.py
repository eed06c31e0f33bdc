"""Make slides of any size with known cells, for demonstrations, tests and benchmarks.

    python benchmarks/slides.py --kind fluorescence --size 4096x4096 --cells 6000 OUT.tif --labels L.tif

Two kinds: dark fluorescence (nuclei of 8 to 40 pixels, single and in touching groups, uneven light,
haze, photon and camera noise) and bright stained tissue (haematoxylin nuclei in eosin). Cells are
placed first, for the whole slide; pixels are then made strip by strip, so memory depends on the width
only. A pixel is a function of the seed and its place: the same arguments give the same slide.

Needs NumPy, OpenCV and tifffile, nothing of cellseg.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

Floats = npt.NDArray[np.float32]

#: Edge of a TIFF tile, and width of the pieces that are drawn at once, in pixels.
TILE, PIECE = 512, 2048
#: Edge of the squares in which cells are placed, in pixels.
BLOCK = 512
#: Largest distance of a nucleus' edge from its centre, and reach of blur and haze, in pixels.
REACH, MARGIN = 26, 96
#: Edge of the texture that the nuclei are cut from, in pixels.
GRAIN = 900
#: Micrometres a pixel that the files state.
PIXEL_SIZE = 0.5


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
        if filled > start and rng.random() < 0.45:  # beside one that is there
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


class Noise:
    """Smooth noise over an endless plane: two wrapped textures whose periods have no common divisor.

    Parameters
    ----------
    seed
        Decides the noise.
    sigma
        Size of its grains in pixels; with ``along``, across the fibres.
    along
        Size of the grains along the fibres in pixels.
    turn
        Direction of the fibres in radians.
    """

    def __init__(
        self, seed: list[int], sigma: float, along: float = 0, turn: float = 0, size: int = 1021
    ) -> None:
        rng = np.random.default_rng(seed)
        self._textures = []
        for edge in (size, size - 184):
            texture = rng.standard_normal((edge, edge)).astype(np.float32)
            border = int(3 * max(sigma, along)) + 1
            padded = cv2.copyMakeBorder(texture, border, border, border, border, cv2.BORDER_WRAP)
            if along:
                padded = cv2.filter2D(padded, -1, _streak(sigma, along, turn))
            else:
                padded = cv2.GaussianBlur(padded, (0, 0), sigma)
            smooth = padded[border:-border, border:-border]
            self._textures.append(smooth / smooth.std() / np.float32(np.sqrt(2)))

    def at(self, y: int, x: int, height: int, width: int) -> Floats:
        """Return the noise over a rectangle: mean 0, deviation 1."""
        total = np.zeros((height, width), np.float32)
        for texture in self._textures:
            edge = len(texture)
            rows, columns = (np.arange(y, y + height) % edge), (np.arange(x, x + width) % edge)
            total += np.take(np.take(texture, rows, axis=0), columns, axis=1)
        return total


def _streak(across: float, along: float, turn: float) -> Floats:
    """Return a Gaussian kernel that is longer in one direction."""
    edge = np.arange(-int(3 * along), int(3 * along) + 1, dtype=np.float32)
    y, x = edge[:, None], edge[None, :]
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.asarray(np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2)), np.float32)


class Canvas:
    """Draws rectangles of one slide.

    Parameters
    ----------
    nuclei
        The slide's cells.
    height, width
        Its size in pixels.
    seed
        Decides the texture and the noise.
    """

    def __init__(self, nuclei: Nuclei, height: int, width: int, seed: int) -> None:
        self.nuclei, self.height, self.width, self.seed = nuclei, height, width, seed
        self._order = np.argsort(nuclei.y, kind="stable")
        self._sorted = nuclei.y[self._order]
        # Fine and coarse chromatin; each nucleus shows another piece of it.
        edge = GRAIN + 4 * REACH
        self._grain = 1 + 0.13 * Noise([seed, 4], 1.6).at(0, 0, edge, edge)
        self._grain += 0.10 * Noise([seed, 5], 4.0).at(0, 0, edge, edge)

    def draw(self, y: int, x: int, height: int, width: int) -> tuple[Floats, Floats, npt.NDArray[np.int32]]:
        """Draw the nuclei of a rectangle that may stick out of the slide.

        Returns
        -------
        light, shape, labels
            Brightness with texture; the nucleus' form from 0 at and beyond the edge to 1 inside; its
            number. A pixel that two nuclei claim belongs to the one in which it lies deeper.
        """
        light = np.zeros((height, width), np.float32)
        shape = np.zeros((height, width), np.float32)
        labels = np.zeros((height, width), np.int32)
        # Squared distance from the centre, 1 at the edge.
        depth = np.full((height, width), np.float32(1.0))
        low, high = np.searchsorted(self._sorted, (y - REACH, y + height + REACH))
        n = self.nuclei
        for i in self._order[low:high]:
            if not x - REACH <= n.x[i] <= x + width + REACH:
                continue
            reach = int(n.long[i] * 1.2) + 2
            top, left = int(n.y[i]) - reach, int(n.x[i]) - reach
            r0, r1 = max(top, y), min(top + 2 * reach + 2, y + height)
            c0, c1 = max(left, x), min(left + 2 * reach + 2, x + width)
            if r0 >= r1 or c0 >= c1:
                continue
            near = self._distance(i, r0, r1, c0, c1)
            part = (slice(r0 - y, r1 - y), slice(c0 - x, c1 - x))
            own = near < depth[part]
            if not own.any():
                continue
            # Light falls off over the last fifth, as it does out of focus; then like a flat dome.
            form = np.clip((1 - near) / 0.35, 0, 1)
            form = form * form * (3 - 2 * form)
            ty, tx = n.texture[i]
            grain = self._grain[ty + r0 - top : ty + r1 - top, tx + c0 - left : tx + c1 - left]
            value = n.light[i] * form * (0.8 + 0.2 * np.sqrt(np.maximum(1 - near, 0))) * grain
            light[part] = np.where(own, value, light[part])
            shape[part] = np.where(own, form, shape[part])
            labels[part] = np.where(own, i + 1, labels[part])
            depth[part] = np.where(own, near, depth[part])
        return light, shape, labels

    def _distance(self, i: int, r0: int, r1: int, c0: int, c1: int) -> Floats:
        """Return the squared distance of pixels from a cell's centre in units of its bulging edge."""
        n = self.nuclei
        dy = np.arange(r0, r1, dtype=np.float32)[:, None] - n.y[i]
        dx = np.arange(c0, c1, dtype=np.float32)[None, :] - n.x[i]
        cos, sin = np.cos(n.angle[i]), np.sin(n.angle[i])
        u, v = (dx * cos + dy * sin) / n.long[i], (dy * cos - dx * sin) / n.short[i]
        squared = u * u + v * v
        # cos 2t and cos 3t of the direction t, without an arc tangent.
        safe = np.maximum(squared, 1e-6)
        twice = (u * u - v * v) / safe
        thrice = u * (u * u - 3 * v * v) / (safe * np.sqrt(safe))
        bulge = n.bulge[i]
        edge = 1 + bulge[0] * twice * np.cos(n.phase[i, 0]) + bulge[1] * thrice * np.cos(n.phase[i, 1])
        return np.asarray(squared / (edge * edge), np.float32)

    def labels(self, y: int, x: int, height: int, width: int) -> npt.NDArray[np.int32]:
        """Return the true labels of a rectangle."""
        return self.draw(y, x, height, width)[2]


class Fluorescence(Canvas):
    """Dark background, bright nuclei; one channel of 8 or 16 bits."""

    channels = 1

    def pixels(self, y: int, x: int, height: int, width: int, dtype: np.dtype) -> npt.NDArray:
        """Return a rectangle of the picture, shape (height, width)."""
        light, _, _ = self.draw(y - MARGIN, x - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN)
        small = cv2.resize(light, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        haze = cv2.resize(
            cv2.GaussianBlur(small, (0, 0), 5), light.shape[::-1], interpolation=cv2.INTER_LINEAR
        )
        sharp = cv2.GaussianBlur(light, (0, 0), 0.9)
        inner = (slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width))
        # Fields of view of 1024 pixels with vignetting, under a slow drift of the stain.
        yy = np.arange(y, y + height, dtype=np.float32)[:, None]
        xx = np.arange(x, x + width, dtype=np.float32)[None, :]
        vignette = 1 - 0.10 * (((yy % 1024) / 512 - 1) ** 2 + ((xx % 1024) / 512 - 1) ** 2)
        drift = 1 + 0.15 * np.sin(yy / 1900 + self.seed) * np.cos(xx / 2300)
        signal = vignette * (4.0 + drift * (44 * sharp[inner] + 9 * haze[inner]))
        rng = np.random.default_rng([self.seed, 6, y, x])
        noise = rng.standard_normal(signal.shape, np.float32)
        # Photon noise grows with the root of the signal; reading the camera adds a constant part.
        signal += noise * np.sqrt(0.05 * signal + 0.25)
        full = np.iinfo(dtype).max
        return np.clip(np.rint(signal * (full / 255)), 0, full).astype(dtype)


class Stained(Canvas):
    """Bright tissue: haematoxylin in nuclei, eosin around them; three channels of 8 bits."""

    channels = 3
    #: Optical density of the two stains in red, green and blue, as measured on real slides.
    haematoxylin, eosin = (0.62, 0.72, 0.32), (0.14, 0.82, 0.36)

    def __init__(self, nuclei: Nuclei, height: int, width: int, seed: int) -> None:
        super().__init__(nuclei, height, width, seed)
        self._fibres = [Noise([seed, 7, k], 1.2, 7.0, turn) for k, turn in enumerate((0.4, 1.7, 2.6))]
        self._tissue = Noise([seed, 8], 28.0)

    def pixels(self, y: int, x: int, height: int, width: int, dtype: np.dtype) -> npt.NDArray:
        """Return a rectangle of the picture, shape (height, width, 3)."""
        if dtype != np.uint8:
            raise ValueError("stained slides have 8 bits a channel")
        border = 32
        light, shape, _ = self.draw(y - border, x - border, height + 2 * border, width + 2 * border)
        at, size = (y - border, x - border), shape.shape
        tissue = self._tissue.at(*at, *size)
        # Bundles of three directions, each where the slow noise has its turn.
        turns = [np.exp(-2 * (tissue - middle) ** 2) for middle in (-1, 0, 1)]
        fibres = sum(w * noise.at(*at, *size) for w, noise in zip(turns, self._fibres, strict=True)) / sum(
            turns
        )
        near = cv2.GaussianBlur(shape, (0, 0), 6)
        gaps = np.clip((tissue - 1.35 - 2 * near + 0.1 * fibres) * 4, 0, 1)
        eosin = np.clip(0.17 + 0.04 * tissue + 0.045 * fibres + 0.08 * near, 0.03, None) * (1 - 0.45 * shape)
        eosin = eosin * (1 - gaps) + 0.012 * gaps
        rim = shape * (1 - shape) * 4
        stain = np.minimum(light, 1.8) * 0.30 + 0.12 * shape + 0.10 * rim * shape + 0.03 * (1 - gaps)
        h, e = np.array(self.haematoxylin, np.float32), np.array(self.eosin, np.float32)
        density = stain[:, :, None] * h + eosin[:, :, None] * e
        rgb = cv2.GaussianBlur(244 * np.power(np.float32(10), -density), (0, 0), 0.8)
        rng = np.random.default_rng([self.seed, 9, y, x])
        inner = rgb[border : border + height, border : border + width]
        inner = inner + 1.6 * rng.standard_normal(inner.shape, np.float32)
        return np.clip(np.rint(inner), 0, 255).astype(np.uint8)


KINDS: dict[str, type[Fluorescence | Stained]] = {"fluorescence": Fluorescence, "stained": Stained}


def tiles(canvas: Fluorescence | Stained, dtype: np.dtype, *, labels: bool = False) -> Iterator[npt.NDArray]:
    """Yield the slide's TIFF tiles row by row, the last ones padded with zeros."""
    for y in range(0, canvas.height, TILE):
        for x in range(0, canvas.width, PIECE):
            size = (min(TILE, canvas.height - y), min(PIECE, canvas.width - x))
            piece = canvas.labels(y, x, *size).astype(dtype) if labels else canvas.pixels(y, x, *size, dtype)
            for left in range(0, size[1], TILE):
                part = piece[:, left : left + TILE]
                if part.shape[:2] != (TILE, TILE):
                    pads = [(0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)]
                    part = np.pad(part, pads[: part.ndim])
                yield np.ascontiguousarray(part)


def write(
    path: Path, canvas: Fluorescence | Stained, dtype: np.dtype, *, labels: bool = False, **options: Any
) -> None:
    """Write the picture or the labels of a slide as a tiled BigTIFF."""
    colour = canvas.channels == 3 and not labels
    tifffile.imwrite(
        path,
        tiles(canvas, dtype, labels=labels),
        shape=(canvas.height, canvas.width, 3) if colour else (canvas.height, canvas.width),
        dtype=dtype,
        tile=(TILE, TILE),
        bigtiff=True,
        photometric="rgb" if colour else "minisblack",
        resolution=(1e4 / PIXEL_SIZE, 1e4 / PIXEL_SIZE),
        resolutionunit="CENTIMETER",
        metadata=None,
        **options,
    )


def main() -> None:
    """Parse the command and make the slide."""
    parser = argparse.ArgumentParser(description="Make a slide with known cells.")
    parser.add_argument("output", type=Path, metavar="OUT.tif")
    parser.add_argument("--kind", choices=sorted(KINDS), default="fluorescence")
    parser.add_argument("--size", default="4096x4096", metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--cells", type=int, help="how many; by default 400 a megapixel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8")
    parser.add_argument("--compression", choices=("none", "zlib", "zstd", "jpeg"), default="none")
    parser.add_argument("--labels", type=Path, metavar="L.tif", help="also write the true labels")
    given = parser.parse_args()
    try:
        height, width = (int(part) for part in given.size.lower().split("x"))
    except ValueError:
        parser.error(f"--size {given.size}: wanted HEIGHTxWIDTH, for example 4096x4096")
    if min(height, width) < 1 or (given.cells or 0) < 0:
        parser.error("size and cells must be positive")
    if given.dtype == "uint16" and (given.kind == "stained" or given.compression == "jpeg"):
        parser.error("--dtype uint16 goes with fluorescence and a lossless compression only")
    started = time.perf_counter()
    cells = round(height * width * 400e-6) if given.cells is None else given.cells
    nuclei = place(height, width, cells, given.seed)
    canvas = KINDS[given.kind](nuclei, height, width, given.seed)
    options: dict[str, Any] = {}
    if given.compression != "none":
        options["compression"] = given.compression
    write(given.output, canvas, np.dtype(given.dtype), **options)
    if given.labels:
        kind = np.dtype(np.uint16 if len(nuclei) < 1 << 16 else np.int32)
        write(given.labels, canvas, kind, labels=True, compression="zlib")
    print(
        f"{given.output}: {height}×{width} pixels, {len(nuclei)} cells, {time.perf_counter() - started:.1f} s"
    )


if __name__ == "__main__":
    main()

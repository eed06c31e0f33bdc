"""Pixels of a made slide, rectangle by rectangle: dark fluorescence, or bright stained tissue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from nuclei_placing import GRAIN, REACH, Floats, Nuclei

#: Reach of blur and haze, in pixels.
MARGIN = 96


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

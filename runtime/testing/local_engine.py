"""A fake engine that is an exact local function of the image, with a stated radius.

Its planes depend on the pixels within ``radius`` and on nothing else, in whole numbers: whatever
differs between two tilings of the same image is therefore the pipeline's fault.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Backend, Pending
from ..errors import BackendError
from ..model.spec import Head, HeadName, ModelSpec, SplitSettings


def local_spec(
    radius: int = 2,
    *,
    channels: int = 1,
    heads: Sequence[HeadName] = ("mask", "boundary"),
    multiple: int = 1,
    tile: int = 32,
    batch: int = 2,
    split: SplitSettings | None = None,
) -> ModelSpec:
    """Return the specification of a :class:`LocalEngine`; the halo is the radius, rounded up."""
    halo = -(-radius // multiple) * multiple
    return ModelSpec(
        name="local",
        architecture="LOCAL",
        channels=1 if channels == 1 else 3,
        normalization="none",
        heads=tuple(Head(name=name, power=2.0 if name == "density" else 1.0) for name in heads),
        multiple=multiple,
        halo=halo,
        receptive_field=halo,
        tile=tile,
        batch=batch,
        split=split or SplitSettings(),
    )


class LocalEngine(Backend):
    """Box mean for ``mask``, twice the deviation from it for ``boundary``, a quarter of it for ``density``.

    Parameters
    ----------
    spec
        As from :func:`local_spec`.
    radius
        Of the box, in pixels.
    shuffle
        Seed; several threads finish batches after random short waits, in any order.
    fail_at
        Number of the batch, from 0, whose result is a :class:`BackendError`.
    """

    name = "local"
    device = "cpu"

    def __init__(
        self, spec: ModelSpec, radius: int = 2, *, shuffle: int | None = None, fail_at: int | None = None
    ) -> None:
        super().__init__(spec)
        self.radius = radius
        self.submitted = 0
        self._fail_at = fail_at
        self._random = None if shuffle is None else random.Random(shuffle)
        self._workers = ThreadPoolExecutor(3, thread_name_prefix="local-engine")
        self.in_flight = 3

    def _prepare(self, tile: int, batch: int) -> None:
        pass

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        wait = self._random.random() * 2e-3 if self._random else 0.0
        number, self.submitted = self.submitted, self.submitted + 1
        future: Future[NDArray[np.uint8]] = self._workers.submit(self._run, number, wait, batch, planes)
        return future

    def _run(
        self, number: int, wait: float, batch: NDArray[np.uint8], planes: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        time.sleep(wait)
        if number == self._fail_at:
            raise BackendError(f"local engine: batch {number} was told to fail")
        planes[:] = local_planes(batch, self.spec.head_names, self.radius)
        return planes

    def _close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)


def local_planes(batch: NDArray[np.uint8], heads: Sequence[str], radius: int) -> NDArray[np.uint8]:
    """Return what the engine computes of a batch.

    Parameters
    ----------
    batch
        uint8 (N, H, W, C); beyond its edges it sees zeros, as a convolution does.
    heads
        Names of the planes.
    radius
        Of the box.

    Returns
    -------
    ndarray of uint8
        (N, K, H, W).
    """
    grey = batch.astype(np.int64).sum(axis=3) // batch.shape[3]
    edge = 2 * radius + 1
    table = np.pad(grey, ((0, 0), (radius + 1, radius), (radius + 1, radius))).cumsum(1).cumsum(2)
    box = (
        table[:, edge:, edge:] - table[:, :-edge, edge:] - table[:, edge:, :-edge] + table[:, :-edge, :-edge]
    )
    mean = box // edge**2
    made: dict[str, NDArray[Any]] = {
        "mask": mean,
        "boundary": np.minimum(255, 2 * np.abs(grey - mean)),
        "density": mean // 4,
    }
    return np.stack([made[name] for name in heads], axis=1).astype(np.uint8)


def whole_image_planes(image: NDArray[np.uint8], heads: Sequence[str], radius: int) -> NDArray[np.uint8]:
    """Return the planes of a whole image, uint8 (K, H, W), reflected at its borders.

    Parameters
    ----------
    image
        uint8 (H, W, C).
    heads, radius
        As for :func:`local_planes`.
    """
    from ..geometry.tiling import reflect

    height, width = image.shape[:2]
    rows = [reflect(y, height) for y in range(-radius, height + radius)]
    columns = [reflect(x, width) for x in range(-radius, width + radius)]
    planes = local_planes(image[np.ix_(rows, columns)][None], heads, radius)
    inner: NDArray[np.uint8] = planes[0, :, radius : radius + height, radius : radius + width]
    return inner

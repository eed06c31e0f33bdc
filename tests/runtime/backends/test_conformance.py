from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.runtime.backends import Backend, Options, load_spec, open_backend
from cellseg.runtime.testing.backends import BackendConformance
from cellseg.runtime.testing.local_engine import LocalEngine, local_planes


def box_planes(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    first = np.pad(batch[..., 0].astype(int), ((0, 0), (1, 1), (1, 1)))
    height, width = batch.shape[1:3]
    total = sum(first[:, y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.stack([np.minimum(total, 255), batch[..., 1]], axis=1).astype(np.uint8)


class TestOpenVino(BackendConformance):
    def open(self, path: Path) -> Backend:
        return open_backend(path, "cpu", engine="openvino", options=Options(threads=1, precision="fp32"))

    def reference(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return box_planes(batch)


class TestOpenVinoLatency(TestOpenVino):
    def open(self, path: Path) -> Backend:
        return open_backend(path, "cpu", options=Options(mode="latency", precision="fp32"))


class TestOnnxRuntime(BackendConformance):
    def open(self, path: Path) -> Backend:
        return open_backend(path, "cpu", engine="onnxruntime", options=Options(threads=1))

    def reference(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return box_planes(batch)


class TestLocalEngine(BackendConformance):
    def open(self, path: Path) -> Backend:
        return LocalEngine(load_spec(path), radius=2, shuffle=1)

    def reference(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return local_planes(batch, ("mask", "boundary"), 2)

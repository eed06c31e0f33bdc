"""Memory, streams and events of one NVIDIA GPU, through the ``cuda-bindings`` package.

Only what running an engine needs, with errors as exceptions. It knows nothing of engines or models.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.spelling import option
from ...errors import BackendError


class Gpu:
    """One GPU as CUDA's runtime sees it.

    Parameters
    ----------
    index
        Number in CUDA's order.

    Raises
    ------
    BackendError
        ``cuda-bindings`` is not installed, or there is no such GPU.
    """

    def __init__(self, index: int) -> None:
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            raise BackendError(
                "running TensorRT plans needs cuda-bindings, which is missing (pip install cuda-bindings)"
            ) from None
        self.index = index
        self.use()

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of CUDA's runtime; return its value, or raise BackendError with CUDA's words."""
        error, *values = getattr(self._cuda, function)(*arguments)
        if int(error) != 0:
            _, text = self._cuda.cudaGetErrorString(error)
            words = text.decode() if isinstance(text, bytes) else str(text)
            raise BackendError(f"GPU {self.index}: {function} failed: {words}")
        return values[0] if values else None

    def use(self) -> None:
        """Make this the GPU of the calling thread."""
        self.call("cudaSetDevice", self.index)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of device memory."""
        try:
            return int(self.call("cudaMalloc", size))
        except BackendError as error:
            raise BackendError(
                f"{error} ({size / 1e6:.1f} MB); take a smaller {option('batch')} or {option('tile')}"
            ) from None

    def free(self, address: int) -> None:
        """Give device memory back."""
        self.call("cudaFree", address)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an uninitialised array in host memory that the GPU reads and writes by itself."""
        return np.asarray(_Pinned(self, shape))

    def stream(self) -> int:
        """Return a stream that does not wait for the default one."""
        return int(self.call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def event(self) -> int:
        """Return an event on which a waiting thread sleeps."""
        flags = self._cuda.cudaEventDisableTiming | self._cuda.cudaEventBlockingSync
        return int(self.call("cudaEventCreateWithFlags", flags))

    def upload(self, address: int, array: NDArray[np.uint8], stream: int) -> None:
        """Copy an array to the device as soon as the stream gets there."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: NDArray[np.uint8], address: int, stream: int) -> None:
        """Copy device memory into an array as soon as the stream gets there."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def record(self, event: int, stream: int) -> None:
        """Let the event happen when the stream gets there."""
        self.call("cudaEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Sleep until the event has happened."""
        self.call("cudaEventSynchronize", event)

    def finish(self, stream: int) -> None:
        """Wait for everything in a stream."""
        self.call("cudaStreamSynchronize", stream)

    def capture(self, stream: int, work: Callable[[], bool]) -> Any | None:
        """Record what `work` puts into the stream as a graph that is launched with one call.

        Returns ``None`` where the work cannot be captured; it then has to be repeated call by call.
        """
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        done = work()
        try:
            graph = self.call("cudaStreamEndCapture", stream)
        except BackendError:
            return None
        try:
            return self.call("cudaGraphInstantiate", graph, 0) if done else None
        except BackendError:
            return None
        finally:
            self.call("cudaGraphDestroy", graph)  # what is launched is a copy

    def launch(self, graph: Any, stream: int) -> None:
        """Run a captured graph in a stream."""
        self.call("cudaGraphLaunch", graph, stream)


class _Pinned:
    """Owner of page-locked host memory; an array made of it keeps it alive."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...]) -> None:
        self._gpu = gpu
        gpu.use()
        self._address = int(gpu.call("cudaHostAlloc", max(1, math.prod(shape)), 0))
        self.__array_interface__ = {
            "shape": shape, "typestr": "|u1", "data": (self._address, False), "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        address, self._address = getattr(self, "_address", 0), 0
        if address:
            with contextlib.suppress(Exception):  # at exit CUDA may have gone first
                self._gpu.call("cudaFreeHost", address)

"""ONNX Runtime on the CPU or an NVIDIA GPU.

ONNX Runtime goes on silently on the CPU where its CUDA provider cannot start; this backend refuses
that. This is the only module that imports ``onnxruntime``.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.spelling import option
from ..errors import BackendError, ModelError, UsageError
from ..model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from .base import Backend, Pending, Precision, check_graph, thread_limit
from .gpus import list_gpus
from .trt.memory import Gpu

#: Severity from which ONNX Runtime's own logger prints.
_FATAL = 4
_INSTALL = "install it with: pip install 'cellseg[gpu]' (not next to the CPU build, whose files it shares)"


class OnnxRuntime(Backend):
    """A model in an ONNX Runtime session.

    Parameters
    ----------
    path
        The ONNX file.
    spec
        Its specification.
    device
        ``cpu`` or ``cuda:N``.
    threads
        CPU threads of one batch; ``None`` for all cores.
    precision
        It computes in what the graph says, but for TF32 (ten bits of fraction) on GPUs that have it, which
        ``fp32`` forbids.

    Raises
    ------
    UsageError
        ``bf16`` was asked for.
    """

    name = "onnxruntime"

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        super().__init__(spec)
        self.device = device
        self._path = path
        self._sound = 0  # pixels of the largest batch that is known to take no absurd memory
        if precision == "bf16":
            raise UsageError(f"ONNX Runtime computes in what the model says ({spec.precision}), not in bf16")
        self._tf32 = spec.precision == "fp32" and precision != "fp32" and _has_tf32(device)
        ort = load()
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        if (threads := thread_limit(threads)) is not None:
            options.intra_op_num_threads = threads
        providers: list[Any] = ["CPUExecutionProvider"]
        cuda = device.startswith("cuda")
        if cuda:
            index = device.partition(":")[2] or "0"
            # The search that times every way is the fastest, and may end elsewhere from run to run.
            search = "HEURISTIC" if precision == "fp32" else "EXHAUSTIVE"
            settings = {"device_id": index, "cudnn_conv_algo_search": search}
            settings["use_tf32"] = str(int(self._tf32))
            providers.insert(0, ("CUDAExecutionProvider", settings))
        try:
            # Without its fallback: that prints to the terminal, and tries the same again.
            self._session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # its exceptions share no base class of their own
            if cuda:  # a library that is missing, more often than a model at fault, which the CPU will tell
                raise BackendError(
                    f"ONNX Runtime did not start on {device}: {_reason(error)}; {_INSTALL}"
                ) from None
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {_reason(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_graph(path, spec, _shapes(inputs), _shapes(outputs))
        running = self._session.get_providers()[0]
        if cuda and running != "CUDAExecutionProvider":
            raise BackendError(
                f"ONNX Runtime did not start on {device} and would have gone on with {running}; {_INSTALL}, "
                f"check the driver with nvidia-smi, or choose {option('device', 'cpu')}"
            )
        self._memory: Gpu | None = None
        if cuda:
            with contextlib.suppress(BackendError):  # copies are slower without, and right
                self._memory = Gpu(int(index))
        # On a GPU, one batch is copied while another computes; on a CPU every batch has all the cores.
        self.in_flight = 3 if cuda else 2
        self._workers = ThreadPoolExecutor(2 if cuda else 1, thread_name_prefix="onnxruntime")

    @property
    def precision(self) -> str:
        """Arithmetic in which it computes."""
        return "tf32" if self._tf32 else self.spec.precision

    @property
    def description(self) -> str:
        """One line about how the model runs."""
        return f"{super().description} ({self.precision})"

    def new_batch(self) -> NDArray[np.uint8]:
        """Return a batch, page-locked where there is a GPU, which then copies by itself."""
        batch = super().new_batch()
        return batch if self._memory is None else self._memory.pinned(batch.shape)

    def new_planes(self) -> NDArray[np.uint8]:
        """Return planes, page-locked where there is a GPU."""
        planes = super().new_planes()
        return planes if self._memory is None else self._memory.pinned(planes.shape)

    def _prepare(self, tile: int, batch: int) -> None:
        """See what it would take; the session itself takes any shape, and whatever memory that needs."""
        from .sizes import read_graph, settle

        pixels = batch * tile * tile
        if pixels > self._sound:
            settle(read_graph(self._path), self.spec, tile, batch)
            self._sound = pixels

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        return _Running(self._workers.submit(self._run, batch, planes))

    def _run(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input(INPUT_NAME, batch)
            binding.bind_output(OUTPUT_NAME, "cpu", 0, np.uint8, planes.shape, planes.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {self.device}: {_reason(error)}") from None
        return planes

    def _close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)


class _Running:
    """One submitted batch."""

    def __init__(self, future: Future[NDArray[np.uint8]]) -> None:
        self._future = future

    def result(self) -> NDArray[np.uint8]:
        """Wait for the planes."""
        return self._future.result()


def load() -> Any:
    """Import ONNX Runtime with the CUDA libraries of this environment, if it has any.

    Raises
    ------
    BackendError
        It is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise BackendError(f"ONNX Runtime is not installed; {_INSTALL}") from None
    onnxruntime.disable_telemetry_events()  # on Windows there is no other switch
    onnxruntime.set_default_logger_severity(_FATAL)  # its coloured lines; what matters is raised
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with contextlib.suppress(Exception):  # what is missing shows when the session starts
            onnxruntime.preload_dlls()
    return onnxruntime


def has_cuda() -> bool:
    """Tell whether the installed ONNX Runtime is a CUDA build (not whether there is a GPU)."""
    try:
        return "CUDAExecutionProvider" in load().get_available_providers()
    except BackendError:
        return False


def _has_tf32(device: str) -> bool:
    """Tell whether a device multiplies in TF32: compute capability 8.0 and up."""
    index = int(device.partition(":")[2] or 0)
    return device != "cpu" and any(gpu.index == index and gpu.capability >= (8, 0) for gpu in list_gpus())


def _shapes(values: Any) -> dict[str, list[int | None]]:
    """Return name → shape of a session's inputs or outputs; free sizes have names there."""
    return {value.name: [size if isinstance(size, int) else None for size in value.shape] for value in values}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

"""OpenVINO on the CPU: the engine of the base installation.

It computes in bfloat16 where the processor multiplies in it and the model bears it, and runs INT8 graphs
as they are.
Only this module and :mod:`.sizes` import ``openvino``.
"""

from __future__ import annotations

import contextlib
import os
import queue
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from ..common.spelling import option
from ..errors import BackendError, UsageError
from ..model.spec import ModelSpec
from .base import FORKED, Backend, Mode, Pending, Precision, check_graph, thread_limit
from .sizes import read_graph, reason, settle

#: OpenVINO's one core in this process, which must never go. Its CPU plug-in gives the thread that loads it
#: another stack for signal handlers, and takes that away with the core. If a second core was made before
#: the first one went, or they go in another thread, the thread is left with a stack that is no longer
#: there, and the next signal that Python handles (Ctrl-C, the end of a child) ends the process without a
#: word: ``SigAltStackSetup`` in OpenVINO up to 2026.4.1 at least.
CORE = openvino.Core()
#: The process that has used it.
_process: int | None = None

#: Largest batch in pixels that stays compiled when it is not in use, and how many shapes do.
SMALL, MOST_SMALL = 1 << 18, 2


class OpenVino(Backend):
    """A model on OpenVINO's CPU plug-in.

    Parameters
    ----------
    path
        The ONNX file.
    spec
        Its specification.
    mode
        For many tiles or for one.
    threads
        Cores to use; ``None`` for all.
    precision
        ``auto`` means bfloat16 where the processor has it and the model bears it.

    Raises
    ------
    UsageError
        The processor or the model does not compute in what was asked for.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        mode: Mode = "throughput",
        threads: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        super().__init__(spec)
        _check_process()
        self._model = read_graph(path)
        check_graph(path, spec, _shapes(self._model.inputs), _shapes(self._model.outputs))
        self._precision = _arithmetic(spec, precision)
        if self._precision == "fp32" and precision == "auto" and _has_bf16():
            self.note = (
                f"model '{spec.name}' runs in fp32: in bf16, which is faster here, its planes differ beyond "
                "the limits of cellseg-export"
            )
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": mode.upper(),
            "INFERENCE_PRECISION_HINT": "bf16" if self._precision.endswith("bf16") else "f32",
        }
        if (threads := thread_limit(threads)) is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: set[_Running] = set()
        self._compiled: Any = None
        self._kept: dict[tuple[int, int], tuple[Any, list[Any]]] = {}

    @property
    def precision(self) -> str:
        """Arithmetic: ``fp32``, ``bf16``, or for an INT8 graph that of its other parts too: ``int8+bf16``."""
        return self._precision

    @property
    def description(self) -> str:
        """One line about how the model runs."""
        if self._compiled is None:
            return super().description
        streams = self._compiled.get_property("NUM_STREAMS")
        threads = self._compiled.get_property("INFERENCE_NUM_THREADS")
        return f"openvino on cpu ({self._precision}, {threads} threads in {streams} streams)"

    def _prepare(self, tile: int, batch: int) -> None:
        shape = tile, batch
        self._compiled, requests = made = self._kept.pop(shape, None) or self._compile(tile, batch)
        # Small ones stay, the last used at the end: pictures of a few sizes come in turns.
        small = [each for each in self._kept if each[1] * each[0] ** 2 <= SMALL]
        self._kept = {each: self._kept[each] for each in small[-MOST_SMALL:]} | {shape: made}
        self.in_flight = len(requests)
        self._free = queue.SimpleQueue()
        for request in requests:
            self._free.put(request)

    def _compile(self, tile: int, batch: int) -> tuple[Any, list[Any]]:
        """Return the model for batches of one shape, and what computes them."""
        settle(self._model, self.spec, tile, batch)
        try:
            compiled = CORE.compile_model(self._model, "CPU", self._options)
            count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            # One batch computes per stream; one more is ready when a stream falls free.
            return compiled, [compiled.create_infer_request() for _ in range(count + 1)]
        except Exception as error:
            raise BackendError(
                f"OpenVINO cannot run model '{self.spec.name}' on {batch} tiles of {tile}: {reason(error)}"
            ) from None

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        request = self._free.get()
        try:
            request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
            request.set_output_tensor(openvino.Tensor(planes, shared_memory=True))
            request.start_async()
        except RuntimeError as error:
            self._free.put(request)
            raise BackendError(f"OpenVINO could not start: {reason(error)}") from None
        running = _Running(self, request, batch, planes)
        self._running.add(running)
        return running

    def _close(self) -> None:
        for running in tuple(self._running):
            with contextlib.suppress(BackendError):  # nobody asked for this batch any more
                running.result()
        self._free = queue.SimpleQueue()
        self._compiled = self._model = None
        self._kept = {}

    def _finished(self, running: _Running) -> None:
        self._running.discard(running)
        self._free.put(running.request)


class _Running:
    """One submitted batch; the backend keeps it, and so both arrays, until OpenVINO is done with them."""

    def __init__(
        self,
        owner: OpenVino,
        request: openvino.InferRequest,
        batch: NDArray[np.uint8],
        planes: NDArray[np.uint8],
    ) -> None:
        self._owner, self.request, self._batch, self._planes = owner, request, batch, planes

    def result(self) -> NDArray[np.uint8]:
        """Wait for the planes and let the request serve another batch."""
        try:
            self.request.wait()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed: {reason(error)}") from None
        finally:
            self._owner._finished(self)
        return self._planes


def _check_process() -> None:
    """Refuse to use the core of a parent process: OpenVINO would wait for ever.

    It is the caller's mistake, and no reason to go on with a slower engine.
    """
    global _process
    if _process not in (None, os.getpid()):
        raise UsageError(f"OpenVINO: {FORKED}")
    _process = os.getpid()


def _has_bf16() -> bool:
    return "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _arithmetic(spec: ModelSpec, wanted: Precision) -> str:
    """Return in what a model computes here."""
    if wanted == "bf16" and not _has_bf16():
        raise UsageError(
            f"this processor does not compute in bfloat16; choose {option('precision', 'auto')} or fp32"
        )
    bears = "bf16" not in spec.unfit
    floating = "bf16" if wanted == "bf16" or (wanted != "fp32" and _has_bf16() and bears) else "fp32"
    return f"int8+{floating}" if spec.precision == "int8" else floating


def _shapes(ports: Any) -> dict[str, list[int | None]]:
    """Return name → shape of a model's inputs or outputs."""
    return {
        port.any_name: [size.get_length() if size.is_static else None for size in port.partial_shape]
        if port.partial_shape.rank.is_static
        else []
        for port in ports
    }

"""OpenVINO on the CPU: the engine of the base installation.

It computes in bfloat16 where the processor multiplies in it and the model bears it, and runs INT8 graphs
as they are.
Only this module and :mod:`.sizes` import ``openvino``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from ..common.memory import machine_memory
from ..common.processor import processor
from ..common.spelling import option
from ..common.threads import bound_cores
from ..errors import BackendError, CellsegError, UsageError
from ..model.spec import ModelSpec
from . import kept
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

#: Largest batch in pixels that counts as small, and how many small shapes stay compiled when they are not in
#: use. Of the others the last one stays.
SMALL, MOST_SMALL = 1 << 18, 2

#: What OpenVINO says of the processor.
DEVICE = "FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES"
#: A model for batches of one shape, and what computes them.
Compiled = tuple[Any, list[Any]]


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
        self._sha256, self._model = _read(path)
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
        self._kept: dict[tuple[int, int], Compiled] = {}
        self._coming: dict[tuple[int, int], Future[Compiled]] = {}
        self._helpers = ThreadPoolExecutor(2, "cellseg-prepare")

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

    def _anticipate(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Begin to compile for these shapes, beside what the caller goes on with."""
        self._coming = {}
        for shape in dict.fromkeys(shapes):
            if shape not in self._kept:
                work = functools.partial(self._compile, self._model.clone(), *shape)
                self._coming[shape] = self._helpers.submit(work)

    def _prepare(self, tile: int, batch: int) -> None:
        shape = tile, batch
        made = self._kept.pop(shape, None)
        if not _small(shape):  # no other large one is needed now, and they take memory
            self._compiled = None
            self._kept = {each: self._kept[each] for each in self._kept if _small(each)}
        coming = self._coming.pop(shape, None)
        if not _small(shape):
            self._coming = {}
        if made is None:
            made = self._compile(self._model, tile, batch) if coming is None else coming.result()
        # Small ones stay, the last used at the end: pictures of a few sizes come in turns.
        small = [each for each in self._kept if _small(each)][-MOST_SMALL:]
        stay = [each for each in self._kept if each in small or not _small(each)]
        self._kept = {each: self._kept[each] for each in stay} | {shape: made}
        self._compiled, requests = made
        self.in_flight = len(requests)
        self._free = queue.SimpleQueue()
        for request in requests:
            self._free.put(request)

    def _compile(self, model: Any, tile: int, batch: int) -> Compiled:
        """Return the model for batches of one shape, and what computes them."""
        identity = None if self._sha256 is None else self._identity(tile, batch)
        try:
            compiled = None if identity is None else _kept(identity, self._options)
            if compiled is None:
                settle(model, self.spec, tile, batch)
                compiled = CORE.compile_model(model, "CPU", self._options)
                if identity is not None:
                    _keep(identity, compiled)
            count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            # One batch computes per stream; one more is ready when a stream falls free.
            return compiled, [compiled.create_infer_request() for _ in range(count + 1)]
        except CellsegError:
            raise
        except Exception as error:
            raise BackendError(
                f"OpenVINO cannot run model '{self.spec.name}' on {batch} tiles of {tile}: {reason(error)}"
            ) from None

    def _identity(self, tile: int, batch: int) -> kept.Identity:
        """Return all that a compiled model depends on."""
        return {
            "engine": f"OpenVINO {openvino.get_version()}",
            "device": [CORE.get_property("CPU", name) for name in DEVICE],
            "processor": processor(),
            "cores": bound_cores(),
            # A size that is too much for a machine is refused before it is compiled.
            "memory": machine_memory(),
            "options": self._options,
            "model": self._sha256,
            "tile": tile,
            "batch": batch,
        }

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
        self._helpers.shutdown(cancel_futures=True)
        self._compiled = self._model = None
        self._kept, self._coming = {}, {}

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


def _small(shape: tuple[int, int]) -> bool:
    tile, batch = shape
    return batch * tile**2 <= SMALL


def _read(path: Path) -> tuple[str | None, Any]:
    """Return the SHA-256 of a model file and its graph; none where the file changes meanwhile."""
    try:
        before = path.stat()
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None, read_graph(path)  # which says what is wrong
    model, after = read_graph(path), path.stat()
    same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return (sha256 if same else None), model


def _kept(identity: kept.Identity, options: dict[str, Any]) -> Any:
    """Return a compiled model of an earlier run, or ``None``."""
    data = kept.load(identity)
    if data is None:
        return None
    with contextlib.suppress(Exception):  # whatever OpenVINO does not like of it
        return CORE.import_model(data, "CPU", options)
    return None


def _keep(identity: kept.Identity, compiled: Any) -> None:
    """Let a later run do without compiling."""
    with contextlib.suppress(Exception):  # then it compiles, too
        kept.save(identity, compiled.export_model().getvalue())


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

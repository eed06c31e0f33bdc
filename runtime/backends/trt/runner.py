"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the one module that runs plans.

Every batch in flight has a slot of its own: execution context, stream, device memory. So the upload
of one batch, the computation of another and the download of a third go on side by side. The
computation is captured as a CUDA graph where the engine allows it, or by the engine itself.

Whether a plan fits is asked before it comes here (:mod:`cellseg.runtime.backends.trt.plans`): a plan is
executable input.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ...model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from ..base import Backend, Pending
from ..gpus import Gpu as Hardware
from .cache import CacheOwner
from .contexts import Contexts
from .memory import Gpu
from .plans import Flavour, Profile

#: Batches under way at once: one each on its way in, in the engine, on its way out.
SLOTS = 3


class TensorRt(Backend):
    """A plan on one GPU.

    Parameters
    ----------
    plan
        The file, for messages.
    data
        Its bytes, known to fit this machine.
    spec
        The model's specification.
    flavour
        The engine that built it.
    profile
        The sizes it was built for; ``None`` asks the plan itself.
    gpu
        Where.

    Raises
    ------
    BackendError
        The engine or CUDA is missing, or does not take the plan; the message has its own words.
    """

    def __init__(
        self,
        plan: Path,
        data: bytes,
        spec: ModelSpec,
        flavour: Flavour,
        profile: Profile | None,
        gpu: Hardware,
    ) -> None:
        super().__init__(spec)
        self.name, self.device, self.in_flight = flavour.name, f"cuda:{gpu.index}", SLOTS
        self._gpu = Gpu(gpu.index)
        try:
            self._trt: Any = importlib.import_module(flavour.name)
        except (ImportError, OSError) as error:
            raise BackendError(f"{flavour.title} does not load: {error}; {flavour.install}") from None
        self._title = f"{flavour.title} {self._trt.__version__}"
        self._log = error_log(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        self._log.messages.clear()  # of another plan before this one
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise BackendError(f"{plan}: {self._title} does not take it: {self._messages()}")
        owner = CacheOwner.of(data, flavour, self._trt.__version__, gpu)
        self._contexts = Contexts(self._trt, self._engine, plan, owner)
        self.note = self._contexts.note
        self._profile = profile or self._own_profile(plan)
        self.tiles = (self._profile.tile[0], self._profile.tile[2])
        self.largest_batch = self._profile.batch[2]
        self._slots: list[_Slot] = []
        self._free: deque[_Slot] = deque()
        self._changed = threading.Condition()

    @property
    def description(self) -> str:
        """One line about how the model runs."""
        captured = self._contexts.captures or any(slot.graph is not None for slot in self._slots)
        graphs = "CUDA graphs" if captured else "no CUDA graphs"
        return f"{self.name} on {self.device} ({self._title}, {self.spec.precision}, {graphs})"

    def new_batch(self) -> NDArray[np.uint8]:
        """Return a batch in page-locked memory, from which the GPU copies by itself."""
        return self._gpu.pinned((self.batch, self.tile, self.tile, self.spec.channels))

    def new_planes(self) -> NDArray[np.uint8]:
        """Return planes in page-locked memory, into which the GPU copies by itself."""
        return self._gpu.pinned((self.batch, len(self.spec.heads), self.tile, self.tile))

    def _prepare(self, tile: int, batch: int) -> None:
        self._gpu.use()
        self._release()
        # An engine that takes no smaller batch computes the missing tiles for nothing.
        whole = max(batch, self._profile.batch[0])
        for _ in range(SLOTS):
            self._slots.append(_Slot(self, tile, whole))
        self._free = deque(self._slots)
        self._contexts.keep()

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        with self._changed:
            while not self._free:
                self._changed.wait()
            slot = self._free.popleft()
        self._gpu.use()
        try:
            slot.start(batch, planes)
        except BackendError:
            self._done(slot)
            raise
        return _Running(self, slot, planes)

    def _close(self) -> None:
        self._gpu.use()
        self._release()
        self._engine = self._runtime = None

    def _release(self) -> None:
        for slot in self._slots:
            slot.release()
        self._slots.clear()
        self._free.clear()

    def _done(self, slot: _Slot) -> None:
        slot.arrays = ()
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def _own_profile(self, plan: Path) -> Profile:
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        if names != {INPUT_NAME, OUTPUT_NAME}:
            raise BackendError(
                f"{plan}: not a plan of ours: it has {', '.join(sorted(names))}, "
                f"wanted {INPUT_NAME} and {OUTPUT_NAME}"
            )
        low, best, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(INPUT_NAME, 0))
        return Profile(batch=(low[0], best[0], high[0]), tile=(low[1], best[1], high[1]))

    def _messages(self) -> str:
        text: str = self._log.latest()
        return text


class _Slot:
    """What one batch in flight needs on the GPU."""

    def __init__(self, owner: TensorRt, tile: int, batch: int) -> None:
        spec = owner.spec
        self.owner, self.gpu = owner, owner._gpu
        self.memory: list[int] = []
        self.graph: Any | None = None
        #: What the GPU reads and writes: kept alive even where nobody waits for the result.
        self.arrays: tuple[NDArray[np.uint8], ...] = ()
        shape = (batch, tile, tile, spec.channels)
        contexts = owner._contexts
        self.context = contexts.create()
        if self.context is None:
            raise BackendError(f"{owner._title} cannot run {batch} tiles of {tile}: {owner._messages()}")
        self.stream, self.event = self.gpu.stream(), self.gpu.event()
        try:
            if not self.context.set_input_shape(INPUT_NAME, shape):
                raise BackendError(f"{owner._title} refuses batches of shape {shape}: {owner._messages()}")
            if contexts.managed and (size := self.context.update_device_memory_size_for_shapes()):
                self.context.set_device_memory(self._reserve(size), size)
            self.input = self._allocate(INPUT_NAME, batch * tile * tile * spec.channels)
            self.output = self._allocate(OUTPUT_NAME, batch * tile * tile * len(spec.heads))
            if not self._run():  # makes what later runs use again, and must not be captured
                raise BackendError(f"{owner._title} cannot run {batch} tiles of {tile}: {owner._messages()}")
            self.gpu.finish(self.stream)
            capturable = getattr(self.context, "is_stream_capturable", None)
            if not contexts.captures and (capturable is None or capturable(self.stream)):
                self.graph = self.gpu.capture(self.stream, self._run)
        except BaseException:
            self.release()
            raise

    def start(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> None:
        """Put upload, computation and download into the stream and return."""
        self.arrays = (batch, planes)
        self.gpu.upload(self.input, batch, self.stream)
        if self.graph is not None:
            self.gpu.launch(self.graph, self.stream)
        elif not self._run():
            raise BackendError(f"{self.owner._title} failed: {self.owner._messages()}")
        self.gpu.download(planes, self.output, self.stream)
        self.gpu.record(self.event, self.stream)

    def release(self) -> None:
        """Wait for what is running and give everything back."""
        self.gpu.finish(self.stream)
        self.arrays = ()
        if self.graph is not None:
            self.gpu.call("cudaGraphExecDestroy", self.graph)
        self.graph = self.context = None
        while self.memory:
            self.gpu.free(self.memory.pop())
        self.gpu.call("cudaEventDestroy", self.event)
        self.gpu.call("cudaStreamDestroy", self.stream)

    def _run(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream))

    def _allocate(self, name: str, size: int) -> int:
        address = self._reserve(size)
        self.context.set_tensor_address(name, address)
        return address

    def _reserve(self, size: int) -> int:
        self.memory.append(self.gpu.allocate(size))
        return self.memory[-1]


class _Running:
    """One submitted batch."""

    def __init__(self, owner: TensorRt, slot: _Slot, planes: NDArray[np.uint8]) -> None:
        self._owner, self._slot, self._planes = owner, slot, planes

    def result(self) -> NDArray[np.uint8]:
        """Wait for the planes; the slot then is free for the next batch."""
        self._owner._gpu.use()
        try:
            self._owner._gpu.wait(self._slot.event)
        finally:
            self._owner._done(self._slot)
        return self._planes


#: One logger an engine and process: the engines keep the first they are given and ignore others.
_LOGGERS: dict[str, Any] = {}


def error_log(engine: Any) -> Any:
    """Return the logger to give to everything of an imported engine, for building and running alike.

    Its ``messages`` are the latest that the engine calls errors, the oldest first; ``latest()`` tells of two.
    """
    if engine.__name__ not in _LOGGERS:
        worst = (engine.ILogger.Severity.INTERNAL_ERROR, engine.ILogger.Severity.ERROR)

        class Log(engine.ILogger):  # type: ignore[misc]  # known only at run time
            """Keeps what the engine calls an error."""

            def __init__(self) -> None:
                engine.ILogger.__init__(self)
                self.messages: deque[str] = deque(maxlen=64)

            def log(self, severity: Any, text: str) -> None:
                if severity in worst:
                    self.messages.append(text)

            def latest(self) -> str:
                """Return the last two in one line."""
                lines = [" ".join(text.split()) for text in list(self.messages)[-2:]]
                return "; ".join(lines) or "it gave no reason"

        _LOGGERS[engine.__name__] = Log()
    return _LOGGERS[engine.__name__]

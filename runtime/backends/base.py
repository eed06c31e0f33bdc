"""The one protocol that every inference engine speaks.

A backend takes batches of byte tiles and returns byte planes, several batches in flight. It knows
nothing of images, seams or cells. :class:`cellseg.runtime.testing.backends.BackendConformance` is
the suite that a new one must pass.
"""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.closing import Closing
from ..common.threads import bound_cores, cores
from ..errors import BackendError, ModelError, UsageError
from ..model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from .turns import Turns

#: ``throughput`` runs several batches side by side, ``latency`` gives the whole device to one.
Mode = Literal["throughput", "latency"]
#: What a user may ask for. ``auto`` takes what the processor is fastest in and the model bears, its twin in
#: eight bits included (:mod:`.twins`); ``fp32`` forbids to compute in less than the graph says; ``bf16``
#: insists on bfloat16; ``int8`` insists on the twin.
Precision = Literal["auto", "fp32", "bf16", "int8"]

#: Said where a forked child would wait for ever for threads that only its parent has.
FORKED = (
    "the process that this one was forked from has used the engine, whose threads do not come along; "
    "start processes with multiprocessing.get_context('spawn'), or use the engine only after forking"
)


def check_graph(
    path: Path,
    spec: ModelSpec,
    inputs: Mapping[str, Sequence[int | None]],
    outputs: Mapping[str, Sequence[int | None]],
) -> None:
    """Refuse a graph that is not what its specification promises, before an engine stumbles over it.

    Parameters
    ----------
    path
        The model file, for the message.
    spec
        Its specification.
    inputs, outputs
        Name → shape as the engine found them; ``None`` where a size is free.

    Raises
    ------
    ModelError
        Names, channels or planes differ.
    """
    for what, found, name, axis, wanted, unit in (
        ("input", inputs, INPUT_NAME, 3, spec.channels, "channels"),
        ("output", outputs, OUTPUT_NAME, 1, len(spec.heads), "planes"),
    ):
        shape = found.get(name, ())
        if set(found) != {name} or len(shape) != 4:
            held = ", ".join(f"'{key}' of {len(value)} axes" for key, value in found.items())
            problem = f"needs one {what} '{name}' of 4 axes, found {held or 'none'}"
        elif shape[axis] not in (None, wanted):
            problem = f"has an {what} of {shape[axis]} {unit}, its specification names {wanted}"
        else:
            continue
        raise ModelError(f"{path}: its graph {problem}; export the model again with cellseg-export")


def thread_limit(wanted: int | None) -> int | None:
    """Return how many CPU threads an engine may use; ``None`` leaves it to the engine.

    Engines see the cores that a process is bound to. What else binds it, a container's share of
    processor time or ``CELLSEG_CORES``, they have to be told.
    """
    if wanted is not None:
        return wanted
    return cores() if cores() < bound_cores() else None


class Pending(Protocol):
    """A batch on its way."""

    def result(self) -> NDArray[np.uint8]:
        """Wait for the batch and return its planes, uint8 (N, K, T, T).

        It is the array that was given to :meth:`Backend.submit`. From here on the batch may be filled
        again.

        Raises
        ------
        BackendError
            The engine failed.
        """
        ...


class Backend(Closing):
    """An engine that has loaded a model: a context manager that owns its memory and threads.

    The order of use is: construct, :meth:`prepare` for a tile and batch size, then any number of
    :meth:`submit`; :meth:`prepare` again for another size once nothing is pending; :meth:`close`.

    Several threads may share it, each within :meth:`prepared`; that is how
    :func:`~cellseg.runtime.segment` uses it. Runs of one size then go on side by side and share its
    rate; those of another size wait for their turn and pay for a new preparation (about .3 s on a CPU,
    seconds on a GPU). Processes cannot share one.
    """

    #: Name as the user writes it, for example ``openvino``.
    name: str
    #: Device as the user writes it: ``cpu`` or ``cuda:0``.
    device: str
    #: What the model promises.
    spec: ModelSpec
    #: What the user should know about the choice of this engine, or empty.
    note: str = ""
    #: Batches that should be submitted before the first result is asked for.
    in_flight: int = 2
    #: Smallest and largest tile edge that :meth:`prepare` accepts.
    tiles: tuple[int, int] = (1, 1 << 15)
    #: Largest batch that :meth:`prepare` accepts.
    largest_batch: int = 1 << 10

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.tile = self.batch = 0
        self._closed = False
        self._turns = Turns()
        self._process = os.getpid()

    @contextlib.contextmanager
    def prepared(self, tile: int, batch: int) -> Iterator[None]:
        """Within it the engine is ready for batches of one shape, whoever else shares it.

        Other threads that want the same shape may be within it too; with another one they wait.
        Parameters and errors are those of :meth:`prepare`.
        """
        with self._turns.hold((tile, batch), lambda: self.prepare(tile, batch)):
            yield

    def prepare(self, tile: int, batch: int) -> None:
        """Get ready for batches of one shape.

        Parameters
        ----------
        tile
            Edge of a tile in pixels, halo included; a multiple of ``spec.multiple``.
        batch
            Tiles in a batch.

        Raises
        ------
        UsageError
            The model or engine does not take this size, or this process was forked since it was opened.
        BackendError
            The engine failed, or is closed.
        """
        self._open()
        if (tile, batch) == (self.tile, self.batch):
            return
        if self._turns.blocks((tile, batch)):
            raise BackendError(f"{self.name} is in use for another size of batch; share it with prepared()")
        self._check_size(tile, batch)
        self._prepare(tile, batch)
        self.tile, self.batch = tile, batch

    def _check_size(self, tile: int, batch: int) -> None:
        """Refuse a shape that the model or the engine does not take."""
        low, high = self.tiles
        if tile % self.spec.multiple or not low <= tile <= high:
            raise UsageError(
                f"{self.name} cannot run tiles of {tile} pixels with model '{self.spec.name}'; "
                f"choose a multiple of {self.spec.multiple} from {low} to {high}"
            )
        if not 1 <= batch <= self.largest_batch:
            raise UsageError(
                f"{self.name} cannot run batches of {batch} with model '{self.spec.name}'; "
                f"choose 1 to {self.largest_batch}"
            )

    def anticipate(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Hear which shapes are likely to be prepared next, and begin beside what the caller goes on with.

        It is a hint, in place of earlier ones: nothing fails here, and any shape may be prepared afterwards.

        Parameters
        ----------
        shapes
            Tile and batch of each, as for :meth:`prepare`.
        """
        # A run that is on its way needs the processor and the memory.
        if not self._closed and not self._turns.held:
            with contextlib.suppress(UsageError):  # it is said where such a shape is prepared
                for shape in shapes:
                    self._check_size(*shape)
                self._anticipate(shapes)

    def new_batch(self) -> NDArray[np.uint8]:
        """Return an uninitialised batch, uint8 (N, T, T, C), in the memory the engine reads fastest."""
        return np.empty((self.batch, self.tile, self.tile, self.spec.channels), np.uint8)

    def new_planes(self) -> NDArray[np.uint8]:
        """Return uninitialised planes, uint8 (N, K, T, T), in the memory the engine writes fastest."""
        return np.empty((self.batch, len(self.spec.heads), self.tile, self.tile), np.uint8)

    def submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8] | None = None) -> Pending:
        """Start inference; return at once, or as soon as the engine can take another batch.

        Parameters
        ----------
        batch
            uint8 (N, T, T, C) of the prepared size, C-contiguous; must not change until the result
            has been returned. Best made by :meth:`new_batch` and used again and again.
        planes
            uint8 (N, K, T, T), C-contiguous, where the result goes; best made by :meth:`new_planes`
            and used again and again. Without it a new array is made.

        Raises
        ------
        BackendError
            The engine failed, is closed or was not prepared.
        ValueError
            An array is of another shape or type than prepared: a bug of the caller.
        """
        self._open()
        if not self.tile:
            raise BackendError(f"{self.name}: prepare() must be called before submit()")
        if planes is None:
            planes = self.new_planes()
        self._check(batch, (self.batch, self.tile, self.tile, self.spec.channels))
        self._check(planes, (self.batch, len(self.spec.heads), self.tile, self.tile))
        return self._submit(batch, planes)

    def _check(self, array: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        if array.shape != shape or array.dtype != np.uint8 or not array.flags.c_contiguous:
            raise ValueError(
                f"{self.name} was prepared for contiguous uint8 {shape}, got {array.dtype} {array.shape}"
            )

    def close(self) -> None:
        """Wait for what is running and give everything back; may be called twice."""
        if not self._closed:
            self._closed = True
            if os.getpid() == self._process:  # what a forked child inherits is its parent's to give back
                self._close()

    def computes_in(self, wanted: Precision) -> bool:
        """Tell whether the engine computes in what a user asks for."""
        kinds = self.precision.split("+")
        if wanted == "fp32":
            return not {"bf16", "tf32"} & set(kinds)
        return wanted == "auto" or wanted in kinds

    @property
    def precision(self) -> str:
        """In what the engine computes, for example ``fp32`` or ``bf16``; known before :meth:`prepare`."""
        return self.spec.precision

    @property
    def description(self) -> str:
        """One line about how the model runs, for reports: precision, threads, streams."""
        return f"{self.name} on {self.device}"

    @abstractmethod
    def _prepare(self, tile: int, batch: int) -> None:
        """Get ready; the sizes have been checked."""

    def _anticipate(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Begin to get ready for shapes that the engine takes, which must not raise."""
        return

    @abstractmethod
    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        """Start a batch; both arrays have been checked."""

    def _close(self) -> None:
        """Give everything back; called once."""

    def _open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name}: the engine has been closed")
        if os.getpid() != self._process:
            raise UsageError(f"{self.name}: {FORKED}")

"""The suite that every backend must pass.

Subclass it in a test module and say how to open the backend::

    class TestOpenVino(BackendConformance):
        def open(self, path: Path) -> Backend:
            return open_backend(path, "cpu", engine="openvino")

The model handed over is any ONNX file with a specification whose planes do not depend on the other
tiles of a batch; :attr:`tolerance` is how far two runs of it may differ (bytes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ..backends import Backend
from ..errors import BackendError, UsageError


class BackendConformance(ABC):
    """What the pipeline relies on, as tests. Needs a fixture ``model_path`` with the ONNX file."""

    #: Largest difference between a result and the reference, bytes.
    tolerance = 0

    @abstractmethod
    def open(self, path: Path) -> Backend:
        """Open the model; called once for every test."""

    def reference(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return the right planes of a batch, or ``None`` where they are not known."""
        return None

    def _tiles(self, backend: Backend, seed: int, count: int = 1) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        shape = (backend.batch, backend.tile, backend.tile, backend.spec.channels)
        return [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(count)]

    def _close_to(self, found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> bool:
        return bool(np.abs(found.astype(np.int16) - wanted).max() <= self.tolerance)

    def test_names_itself(self, model_path: Path) -> None:
        """Name, device and specification are there."""
        with self.open(model_path) as backend:
            assert backend.name
            assert backend.device == "cpu" or backend.device.startswith("cuda:")
            assert backend.name in backend.description
            assert backend.in_flight >= 2

    def test_planes_have_the_promised_shape_and_are_right(self, model_path: Path) -> None:
        """One batch in, one set of planes out, equal to the reference."""
        with self.open(model_path) as backend:
            spec = backend.spec
            backend.prepare(spec.tile, 2)
            (batch,) = self._tiles(backend, 0)
            planes = backend.submit(batch).result()
            assert planes.shape == (2, len(spec.heads), spec.tile, spec.tile)
            assert planes.dtype == np.uint8
            wanted = self.reference(batch)
            if wanted is not None:
                assert self._close_to(planes, wanted)

    def test_several_in_flight_keep_their_own_results(self, model_path: Path) -> None:
        """Results belong to their batches, however many are under way and whoever waits first."""
        with self.open(model_path) as backend:
            backend.prepare(backend.spec.tile, 1)
            batches = self._tiles(backend, 1, 2 * backend.in_flight)
            alone = [backend.submit(batch).result().copy() for batch in batches]
            waiting = []
            for start in range(0, len(batches), backend.in_flight):
                waiting = [backend.submit(batch) for batch in batches[start : start + backend.in_flight]]
                for pending, wanted in reversed(list(zip(waiting, alone[start:], strict=False))):
                    assert self._close_to(pending.result(), wanted)

    def test_results_go_where_they_were_asked_to(self, model_path: Path) -> None:
        """Arrays made once are used again and again, as the pipeline does."""
        with self.open(model_path) as backend:
            backend.prepare(backend.spec.tile, 2)
            batch, planes = backend.new_batch(), backend.new_planes()
            for tiles in self._tiles(backend, 2, 3):
                batch[:] = tiles
                assert backend.submit(batch, planes).result() is planes
                assert self._close_to(planes, backend.submit(tiles).result())

    def test_a_tile_does_not_see_its_neighbours_in_the_batch(self, model_path: Path) -> None:
        """Batches are a matter of speed alone."""
        with self.open(model_path) as backend:
            backend.prepare(backend.spec.tile, 3)
            (batch,) = self._tiles(backend, 3)
            together = backend.submit(batch).result().copy()
            backend.prepare(backend.spec.tile, 1)
            for tile, wanted in zip(batch, together, strict=True):
                assert self._close_to(backend.submit(tile[None].copy()).result()[0], wanted)

    def test_can_be_prepared_for_another_tile(self, model_path: Path) -> None:
        """One open backend serves images of many sizes."""
        with self.open(model_path) as backend:
            spec = backend.spec
            for tile in (spec.tile, spec.tile + spec.multiple):
                if not backend.tiles[0] <= tile <= backend.tiles[1]:
                    continue
                backend.prepare(tile, 1)
                (batch,) = self._tiles(backend, 4)
                planes = backend.submit(batch).result()
                assert planes.shape[2:] == (tile, tile)
                wanted = self.reference(batch)
                if wanted is not None:
                    assert self._close_to(planes, wanted)

    def test_threads_share_it(self, model_path: Path) -> None:
        """Each thread gets the planes of its own batches, whatever size the others want."""
        with self.open(model_path) as backend:
            spec = backend.spec
            sizes = [size for size in (1, 2) if size <= backend.largest_batch]

            def run(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
                with backend.prepared(spec.tile, sizes[number % len(sizes)]):
                    (batch,) = self._tiles(backend, number % 4)
                    return batch, backend.submit(batch).result().copy()

            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(run, range(16)))
            for batch, planes in found:
                with backend.prepared(spec.tile, len(batch)):
                    assert self._close_to(planes, backend.submit(batch).result())

    def test_refuses_what_it_cannot_run(self, model_path: Path) -> None:
        """Wrong sizes are named before the engine sees them."""
        with self.open(model_path) as backend:
            spec = backend.spec
            with pytest.raises(BackendError, match="prepare"):
                backend.submit(np.zeros((1, spec.tile, spec.tile, spec.channels), np.uint8))
            if spec.multiple > 1:
                with pytest.raises(UsageError, match=f"multiple of {spec.multiple}"):
                    backend.prepare(spec.tile + 1, 1)
            with pytest.raises(UsageError, match="batches of 0"):
                backend.prepare(spec.tile, 0)
            backend.prepare(spec.tile, 1)
            with pytest.raises(ValueError, match="was prepared for"):
                backend.submit(np.zeros((1, spec.tile, spec.tile + 1, spec.channels), np.uint8))
            with pytest.raises(ValueError, match="was prepared for"):
                backend.submit(np.zeros((1, spec.tile, spec.tile, spec.channels), np.int8))

    def test_closes_with_work_under_way(self, model_path: Path) -> None:
        """Closing waits, may be repeated, and nothing runs afterwards."""
        backend = self.open(model_path)
        backend.prepare(backend.spec.tile, 1)
        (batch,) = self._tiles(backend, 5)
        backend.submit(batch)
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.submit(batch)

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.backends import Options
from cellseg.runtime.cluster.attempt import Watch
from cellseg.runtime.cluster.worker import EnginePlugin, Opening, share_of
from cellseg.runtime.common.pulse import beat, beats
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import ArrayReader
from cellseg.runtime.spans.blocks import BlockReader, BlockWriter
from cellseg.runtime.streaming.progress import Progress


class Stopping:
    stopped = False

    def stop(self):
        self.stopped = True


def dask_worker(name, **callbacks):
    """Return what the plugin takes for a worker."""
    return type("Worker", (), {"name": name, "periodic_callbacks": callbacks})()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="harmless from Python 3.12 on")
def test_what_may_lock_a_worker_up_is_stopped():
    callback = Stopping()
    worker = dask_worker(0, profile=callback, heartbeat=Stopping())
    EnginePlugin(Opening(None, "auto", None, Options())).setup(worker)
    assert callback.stopped
    assert not worker.periodic_callbacks["heartbeat"].stopped


@given(st.integers(1, 64), st.integers(1, 64))
def test_shares_are_apart_and_all(cores, sharers):
    processors = list(range(cores))
    shares = [share_of(processors, number, sharers) for number in range(sharers)]
    if cores < sharers:
        assert all(share == processors for share in shares)
        return
    assert sorted(core for share in shares for core in share) == processors
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_plugin_travels_without_its_engine():
    plugin = EnginePlugin(Opening("m.onnx", "auto", None, Options(), 2))
    plugin.setup(dask_worker(1))
    again = pickle.loads(pickle.dumps(plugin))
    assert again._opening == plugin._opening
    assert not hasattr(again, "_backend")


@pytest.mark.parametrize(("name", "number"), [(3, 3), ("3", 3), ("tcp://10.0.0.1:40000", 0)])
def test_workers_know_their_number(name, number):
    plugin = EnginePlugin(Opening(None, "auto", None, Options()))
    plugin.setup(dask_worker(name))
    assert plugin._number == number


def test_what_counts_as_moving_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("cellseg.runtime.cluster.attempt.time.monotonic", lambda: now[0])
    watch = Watch(None, 10.0)
    watch.note(Progress(9, 1, 0, 0.0, {}))
    for moves in (lambda: watch.note(Progress(9, 2, 0, 0.0, {})), beat, lambda: None):
        assert not watch.stalled()
        now[0] += 9.0
        moves()
    assert not watch.stalled()
    watch.note(Progress(9, 2, 0, 0.0, {}))  # told again, nothing new
    now[0] += 2.0
    assert watch.stalled()


def test_reading_and_writing_are_moving_on(tmp_path):
    before = beats()
    with ArrayReader(np.zeros((8, 8), np.uint8)) as reader:
        reader.read(Region(0, 0, 8, 8))
    read = beats()
    with BlockWriter(tmp_path / "a") as file:
        file.add({}, {"x": np.arange(3)})
        file.commit()
    written = beats()
    with BlockReader(tmp_path / "a") as file:
        file.load(0)
    assert before < read < written < beats()

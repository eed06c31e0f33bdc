import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.backends import Options
from cellseg.runtime.cluster.worker import EnginePlugin, Opening, share_of


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
    plugin.setup(type("Worker", (), {"name": 1})())
    again = pickle.loads(pickle.dumps(plugin))
    assert again._opening == plugin._opening
    assert not hasattr(again, "_backend")


@pytest.mark.parametrize(("name", "number"), [(3, 3), ("3", 3), ("tcp://10.0.0.1:40000", 0)])
def test_workers_know_their_number(name, number):
    plugin = EnginePlugin(Opening(None, "auto", None, Options()))
    plugin.setup(type("Worker", (), {"name": name})())
    assert plugin._number == number

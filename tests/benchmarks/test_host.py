"""The stand-ins for slide and network: threads are counted by name, and simulated time passes."""

import importlib
import threading
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def host(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("host")


def spin(seconds):
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        pass


def test_threads_are_counted_by_stage(host):
    plain = threading.Thread.run
    with host.ThreadMeter() as meter:
        names = "cellseg-split", "cellseg-split_0", "cellseg-split_1", "cellseg-write", "another"
        threads = [threading.Thread(target=spin, args=(0.02,), name=name) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert threading.Thread.run is plain
    stages = meter.stages()
    assert stages.keys() == {"split", "write"}
    assert stages["split"]["thread"] >= 0.02
    assert stages["split"]["pool"] >= 0.04
    assert stages["write"]["pool"] == 0


def test_a_run_without_an_engine_says_where_the_time_went(host, tmp_path):
    run = host.run_host(600, 900, tmp_path / "out")
    figures = run.figures()
    assert run.result.count > 100
    assert {"read", "gather", "infer", "stitch", "split"} <= run.stage_cpu.keys()
    assert run.stage_cpu["split"]["thread"] > 0
    assert figures["slowest_stage"] in run.stage_cpu
    assert figures["slowest_stage_mpx_s"] == pytest.approx(
        0.54 / run.stage_cpu[figures["slowest_stage"]]["thread"]
    )
    # All threads together have not taken more than the process.
    assert sum(sum(times.values()) for times in run.stage_cpu.values()) <= run.cpu


def test_a_simulated_engine_takes_the_time_it_is_told(host, tmp_path):
    run = host.run_host(600, 900, tmp_path / "out", mpx_s=2.0)
    assert run.result.record.seconds.run >= 0.54 / 2.0

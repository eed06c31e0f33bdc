"""Images over real Dask workers: processes on this machine."""

import os
import signal
import threading
from pathlib import PosixPath

import numpy as np
import pytest
import tifffile

from cellseg.runtime.batch.jobs import Job
from cellseg.runtime.cluster import sight
from cellseg.runtime.cluster.connect import connect, local_processes
from cellseg.runtime.cluster.many import segment_many
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.cluster.where import Place
from cellseg.runtime.common.spelling import written_as
from cellseg.runtime.common.threads import cores
from cellseg.runtime.errors import UsageError
from cellseg.runtime.options import SegmentOptions

pytestmark = pytest.mark.slow


def test_the_same_bytes_as_one_process(images, alone, hashes, bright_model, tmp_path):
    odd = np.zeros((5, 40, 50), np.uint8)
    tifffile.imwrite(images / "broken.tif", odd, photometric="minisblack", planarconfig="separate")
    try:
        events = []
        with written_as("command"), connect(f"local:{min(2, cores())}") as connected:
            jobs = [
                Job(str(path), tmp_path / path.stem, SegmentOptions()) for path in sorted(images.iterdir())
            ]
            outcomes = list(run_jobs(jobs, connected, str(bright_model), tell=events.append))
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        assert [outcome.job.folder.name for outcome in failed] == ["broken"]
        assert "broken.tif" in str(failed[0].error)
        assert "--" in str(failed[0].error)  # as on the command line, though it comes from a worker
        assert {name: hashes(tmp_path / name) for name in alone} == alone
        assert {outcome.worker for outcome in outcomes} <= {"0", "1"}
        assert {event["job"] for event in events} <= set(range(6))
    finally:
        (images / "broken.tif").unlink()


def test_a_client_of_ones_own_stays_open_and_done_images_are_skipped(
    images, alone, hashes, bright_model, tmp_path
):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for earlier in (False, True):
            outcomes = list(
                segment_many([images], bright_model, output=tmp_path, cluster=client, resume=True)
            )
            assert [outcome.error for outcome in outcomes] == [None] * 5
            assert {outcome.earlier for outcome in outcomes} == {earlier}
        assert client.status == "running"
    assert {name: hashes(tmp_path / name) for name in alone} == alone


def test_a_killed_worker_loses_nothing(images, alone, hashes, bright_model, tmp_path):
    with connect("local:1") as connected:
        jobs = [Job(str(path), tmp_path / path.stem, SegmentOptions()) for path in sorted(images.iterdir())]
        killed = threading.Event()

        def kill_once(event):
            if not killed.is_set():
                killed.set()
                os.kill(pids[0], signal.SIGKILL)

        pids = list(connected.client.run(os.getpid).values())
        outcomes = list(run_jobs(jobs, connected, str(bright_model), tell=kill_once))
    assert killed.is_set()
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert {name: hashes(tmp_path / name) for name in alone} == alone


def test_an_image_that_kills_workers_is_given_up_by_name(images, bright_model, tmp_path, monkeypatch):
    with connect("local:1") as connected:
        jobs = [
            Job(str(path), tmp_path / path.stem, SegmentOptions()) for path in sorted(images.iterdir())[:1]
        ]
        monkeypatch.setattr("cellseg.runtime.cluster.handout.work", _deadly)
        outcomes = list(run_jobs(jobs, connected, str(bright_model)))
    assert "3 workers died on it" in str(outcomes[0].error)
    assert str(images / "image0.tif") in str(outcomes[0].error)


def _deadly(job, number, fresh):
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_worker_cannot_see_is_found_out_before(images, bright_model, tmp_path):
    with connect("local:1") as connected:
        connected.client.run(_blind)
        job = Job(str(images / "image0.tif"), tmp_path / "a", SegmentOptions())
        with pytest.raises(UsageError, match=r"image0.tif: worker .* does not see it"):
            list(run_jobs([job], connected, str(bright_model)))
    assert not list(tmp_path.iterdir())


def _blind():
    """Let this worker see no images."""

    class Seen(PosixPath):
        def exists(self):
            return super().exists() and not self.name.startswith("image")

    sight.Path = Seen


def test_no_scheduler_there():
    with pytest.raises(UsageError, match="no Dask scheduler answers there"), connect("tcp://127.0.0.1:9"):
        pass


def test_more_processes_than_cores():
    with pytest.raises(UsageError, match=f"there are {cores()} cores"):
        local_processes(Place(local=cores() + 1))
    assert local_processes(Place(local=0)) >= 1


def test_an_open_backend_cannot_travel(images, bright_model, tmp_path):
    from cellseg.runtime.backends import open_backend

    wanted = pytest.raises(UsageError, match="give a file or a name")
    with open_backend(bright_model, "cpu") as backend, wanted:
        list(segment_many([images], backend, output=tmp_path, cluster="local:1"))

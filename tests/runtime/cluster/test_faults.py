"""What goes wrong on clusters is made to go wrong: the same bytes in the end, or a line about what failed."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed.diagnostics.plugin import WorkerPlugin

from cellseg.runtime.batch.jobs import Job
from cellseg.runtime.cluster import attempt, handout
from cellseg.runtime.cluster.connect import connect
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.cluster.sight import Sight
from cellseg.runtime.common.threads import cores
from cellseg.runtime.errors import ExistsError
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.writers.folder import OutputFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")]


def jobs_of(images, output, **options):
    return [
        Job(str(path), output / path.stem, SegmentOptions(**options)) for path in sorted(images.iterdir())
    ]


def check(outcomes, output, alone, hashes):
    assert [outcome.error for outcome in outcomes] == [None] * len(alone)
    assert {name: hashes(output / name) for name in alone} == alone
    assert not [path for path in output.rglob("*") if path.name.endswith((".partial", ".replaced"))]


def once(flag):
    """Return whether this is the first call of all processes."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def hang_once(flag):
    plain = attempt.run_job

    def run_job(*arguments):
        if once(flag):
            time.sleep(3600)
        return plain(*arguments)

    attempt.run_job = run_job


def test_a_worker_that_hangs_is_ended_and_its_image_done(
    images, alone, hashes, bright_model, tmp_path, monkeypatch
):
    monkeypatch.setattr("cellseg.runtime.cluster.run.STALL", 3.0)
    with connect("local:1") as connected:
        connected.client.run(hang_once, str(tmp_path / "flag"))
        outcomes = list(run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)))
    assert (tmp_path / "flag").exists()
    check(outcomes, tmp_path / "out", alone, hashes)


def take_time(seconds):
    """Let an image take some time, in which something can happen to its worker."""
    plain = attempt.run_job

    def run_job(job, *arguments):
        with contextlib.suppress(OSError), OutputFolder(job.folder):
            time.sleep(seconds)
        return plain(job, *arguments)

    attempt.run_job = run_job


@pytest.mark.skipif(cores() < 2, reason="takes two workers")
def test_a_worker_that_is_not_heard_of(images, alone, hashes, bright_model, tmp_path):
    """It is stopped while it holds the folder of an image."""
    with dask.config.set({"distributed.scheduler.worker-ttl": "2s"}), connect("local:2") as connected:
        pids = list(connected.client.run(os.getpid).values())
        connected.client.run(take_time, 0.5)
        outcomes = []
        for outcome in run_jobs(jobs_of(images, tmp_path), connected, str(bright_model)):
            if not outcomes:
                os.kill(pids[0], signal.SIGSTOP)
            outcomes.append(outcome)
    check(outcomes, tmp_path, alone, hashes)


def die_before_telling(flag):
    plain = attempt.run_job

    def run_job(*arguments):
        found = plain(*arguments)
        if once(flag):
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    attempt.run_job = run_job


def test_a_worker_that_dies_between_its_results_and_telling_of_them(
    images, alone, hashes, bright_model, tmp_path
):
    with connect("local:1") as connected:
        connected.client.run(die_before_telling, str(tmp_path / "flag"))
        outcomes = list(run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)))
    assert (tmp_path / "flag").exists()
    check(outcomes, tmp_path / "out", alone, hashes)
    assert {outcome.earlier for outcome in outcomes} == {False}


def test_results_of_an_earlier_run_are_not_taken_for_our_own(images, bright_model, tmp_path, monkeypatch):
    """It ends before any worker is asked, and the others are done."""
    first, second = jobs_of(images, tmp_path)[:2]
    with connect("local:1") as connected:
        assert [outcome.error for outcome in run_jobs([first], connected, str(bright_model))] == [None]
        outcomes = list(run_jobs([first, second], connected, str(bright_model)))
        assert [type(outcome.error) for outcome in outcomes] == [ExistsError, type(None)]
        monkeypatch.setattr("cellseg.runtime.cluster.run.checked_workers", None)
        (outcome,) = run_jobs([first], connected, str(bright_model))
    assert f"{first.folder}: exists; replace it with overwrite=True" in str(outcome.error)


def fill_disk():
    """Let this process write no file of more than 100 bytes, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.skipif(cores() < 2, reason="takes two workers")
def test_a_full_disk_on_one_node(images, alone, hashes, bright_model, tmp_path):
    with connect("local:2") as connected:
        first = next(iter(connected.client.nthreads()))
        connected.client.run(fill_disk, workers=[first])
        outcomes = list(run_jobs(jobs_of(images, tmp_path), connected, str(bright_model)))
    check(outcomes, tmp_path, alone, hashes)
    assert len({outcome.worker for outcome in outcomes}) == 1


@pytest.mark.skipif(cores() < 2, reason="takes two workers")
def test_a_full_disk_on_all_nodes_is_one_line_an_image(images, bright_model, tmp_path):
    with connect("local:2") as connected:
        connected.client.run(fill_disk)
        outcomes = list(run_jobs(jobs_of(images, tmp_path), connected, str(bright_model)))
    assert len(outcomes) == 5
    for outcome in outcomes:
        assert outcome.job.folder.name in str(outcome.error)
        assert "\n" not in str(outcome.error)
        assert not outcome.job.folder.exists()


@pytest.fixture
def programs():
    """Start programs; end them all."""
    running = []

    def start(*command, **options):
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def scheduler(programs, tmp_path):
    """Start a scheduler without workers; return its address and process."""
    file = tmp_path / "scheduler.json"
    process = programs(
        sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
        "--no-dashboard", "--scheduler-file", str(file),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not file.exists() or '"address"' not in file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    return address, process


def worker(programs, address, *more):
    return programs(
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--host",
        "127.0.0.1", "--no-dashboard", "--death-timeout", "60", *more,
    )  # fmt: skip


def test_a_scheduler_that_goes_names_what_is_left(programs, scheduler, images, bright_model, tmp_path):
    address, process = scheduler
    worker(programs, address)
    with connect(address) as connected:
        connected.client.wait_for_workers(1, timeout=60)
        outcomes = []
        for outcome in run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)):
            outcomes.append(outcome)
            process.kill()
    assert len(outcomes) == 5
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert failed
    for outcome in failed:
        assert f"{outcome.job.image}: the scheduler was lost" in str(outcome.error)


class LateIsBlind(WorkerPlugin):
    """Lets a worker of that name see nothing."""

    name = "late is blind"

    def setup(self, worker):
        if worker.name == "late":
            Sight.missing = lambda self: ("/images", "does not see it")


def test_a_worker_that_comes_late_and_sees_nothing_gets_no_work(
    programs, scheduler, images, alone, hashes, bright_model, tmp_path
):
    address, _ = scheduler
    worker(programs, address, "--name", "first")
    with connect(address) as connected:
        connected.client.wait_for_workers(1, timeout=60)
        connected.client.run(take_time, 0.5)
        connected.client.register_plugin(LateIsBlind())
        outcomes = []
        for outcome in run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)):
            if not outcomes:
                assert list((tmp_path / "out").glob(".cellseg-seen-*"))
                worker(programs, address, "--name", "late", "--no-nanny").wait(timeout=60)
            outcomes.append(outcome)
        assert not list((tmp_path / "out").glob(".cellseg-seen-*"))
        # One that comes after the run is none of it.
        after = worker(programs, address, "--name", "late", "--no-nanny")
        connected.client.wait_for_workers(2, timeout=60)
        assert after.poll() is None
    check(outcomes, tmp_path / "out", alone, hashes)
    assert {outcome.worker for outcome in outcomes} == {"first"}


def test_no_worker_is_left(programs, scheduler, images, bright_model, tmp_path, monkeypatch):
    monkeypatch.setattr(handout, "GONE", 1.0)
    monkeypatch.setattr("cellseg.runtime.cluster.connect.PATIENCE", 3.0)
    address, _ = scheduler
    alone = worker(programs, address, "--no-nanny")
    with connect(address) as connected:
        connected.client.wait_for_workers(1, timeout=60)
        connected.client.run(hang_once, str(tmp_path / "flag"))
        threading.Timer(3.0, alone.kill).start()
        outcomes = list(run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)))
    assert len(outcomes) == 5
    for outcome in outcomes:
        assert "no worker was left for" in str(outcome.error) or "workers died" in str(outcome.error)


class Relay:
    """Passes bytes between whoever connects and an address, until it is cut."""

    def __init__(self, address):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            each.close()

    def cut(self):
        self._listening.close()
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def test_a_network_that_is_cut(programs, scheduler, images, alone, hashes, bright_model, tmp_path):
    address, _ = scheduler
    relay = Relay(address)
    worker(programs, relay.address, "--name", "far")
    with connect(address) as connected:
        connected.client.wait_for_workers(1, timeout=60)
        connected.client.run(take_time, 0.5)
        outcomes = []
        for outcome in run_jobs(jobs_of(images, tmp_path / "out"), connected, str(bright_model)):
            if not outcomes:
                relay.cut()
                worker(programs, address, "--name", "near")
            outcomes.append(outcome)
    assert {outcome.worker for outcome in outcomes} == {"far", "near"}
    check(outcomes, tmp_path / "out", alone, hashes)


def test_the_command_killed_and_started_again(programs, images, alone, hashes, bright_model, tmp_path):
    command = [
        sys.executable, "-c", "from cellseg.runtime.cli.infer import main; main()", str(images), "-o",
        str(tmp_path / "out"), "--engine", str(bright_model), "--cluster", "local:1", "--resume",
    ]  # fmt: skip
    marked = {"CELLSEG_TEST_OF_KILLING": str(os.getpid())}
    first = programs(*command, env=os.environ | marked, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("image*/run.json")):  # the first is done, the others are not
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.wait()
    deadline = time.monotonic() + 60
    while left := processes_with(marked):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "done already" in again.stdout
    assert {name: hashes(tmp_path / "out" / name) for name in alone} == alone
    assert not list((tmp_path / "out").glob(".*"))


def processes_with(marked):
    """Return the processes with something in their environment."""
    ((key, value),) = marked.items()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{key}={value}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found

"""Jobs of a batch system that is played by a script; ``tests/system/test_slurm.py`` has a real one."""

import contextlib
import time

import pytest

from cellseg.runtime.batch.jobs import Job
from cellseg.runtime.cluster.connect import connect
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.cluster.submit import Submitted
from cellseg.runtime.cluster.where import BatchSystem
from cellseg.runtime.errors import BackendError
from cellseg.runtime.options import SegmentOptions


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return a folder that is the only place of commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def make(folder, name, *lines):
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def describe(tmp_path, system="slurm", patience=30):
    file = tmp_path / "batch.yml"
    file.write_text(f"system: {system}\njobs: 2\ncores: 3\nmemory: 2GB\npatience: {patience}\n")
    return str(file)


def refused(tmp_path, **options):
    """Return what is said of images that no job ever does."""
    job = Job(str(tmp_path / "a.tif"), tmp_path / "out" / "a", SegmentOptions())
    with pytest.raises(BackendError) as caught, connect(describe(tmp_path, **options)) as connected:
        list(run_jobs([job], connected))
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("system", "command"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_refusal_is_told_at_once_as_the_system_says_it(commands, tmp_path, system, command, caplog):
    make(commands, command, "echo some output", "echo 'error: no such' >&2", "echo queue >&2", "exit 3")
    started = time.monotonic()
    assert refused(tmp_path, system=system, patience=3600).endswith(
        f"no worker came; {system} takes no job: error: no such queue"
    )
    assert time.monotonic() - started < 600  # not the hour that a job may wait in its queue
    assert "Traceback" not in caplog.text


def test_no_batch_system_here(commands, tmp_path):
    assert "there is no command 'sbatch' here; run this where jobs are submitted" in refused(tmp_path)


@pytest.mark.parametrize(
    ("squeue", "patience", "said"),
    [
        (("exit 0",), 60, "job 17 ended before its worker was heard of; its log in this folder says why"),
        (("echo 'slurm_load_jobs error: Invalid job id specified' >&2", "exit 1"), 60, "job 17 ended before"),
        (("echo 17",), 1, "no worker came within 1 s; look at the jobs' queue and logs"),
        (("exit 1",), 1, "no worker came within 1 s"),
    ],
)
def test_a_job_that_ended_is_not_waited_for(commands, tmp_path, squeue, patience, said):
    make(commands, "sbatch", "echo Submitted batch job 17")
    make(commands, "scancel")
    make(commands, "squeue", *squeue)
    assert said in refused(tmp_path, patience=patience)


def test_a_job_keeps_to_its_cores_and_memory_is_left_to_the_system(commands):
    with contextlib.closing(Submitted(BatchSystem(system="slurm", jobs=1, cores=3, before=("a b",)))) as made:
        lines = made.cluster.job_script().splitlines()
    assert "#SBATCH --cpus-per-task=3" in lines
    assert "a b" in lines
    assert "export CELLSEG_CORES=3" in lines
    assert lines[-1].endswith("--memory-limit 0")

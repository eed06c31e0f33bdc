"""``cellseg-infer --cluster slurm.yml`` on a real Slurm of one node, that is started here."""

import contextlib
import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ..runtime.cluster.conftest import draw_images

SCRIPT = runpy.run_path(str(Path(__file__).with_name("one_node_slurm.py")))
COMMAND = [sys.executable, "-c", "from cellseg.runtime.cli.infer import main; main()"]
#: Endings of files that say when and where they were made.
DATED = (".json", ".html", ".png", ".csv")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm():
    """Yield the environment of the commands."""
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(SCRIPT["one_node_slurm"]())
        except SCRIPT["UnavailableError"] as error:
            pytest.skip(f"no Slurm here: {error}")
        yield environment


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), 4)


def describe(folder, **more):
    """Write the description of the batch system; return it."""
    given = {"system": "slurm", "jobs": 2, "cores": 1, "memory": "1GB", "walltime": "'00:10:00'"}
    given |= {"queue": "all", "logs": str(folder / "logs"), "patience": 120, **more}
    file = folder / "slurm.yml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
    return file


def hashes(folder):
    """Return a digest of every file of the results but records, pages and pictures."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name == "zarr.json" or path.suffix not in DATED)
    }


def run(environment, *arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_jobs_make_the_same_bytes_as_one_process(slurm, images, bright_model, tmp_path):
    alone = run(slurm, images, "-o", tmp_path / "alone", "--engine", bright_model)
    assert alone.returncode == 0, alone.stderr
    file = describe(tmp_path)
    found = run(slurm, images, "-o", tmp_path / "jobs", "--engine", bright_model, "--cluster", file, "-v")
    assert found.returncode == 0, found.stderr
    assert "4 images on slurm, up to 2 jobs" in found.stderr
    assert len(hashes(tmp_path / "alone")) > 12
    assert hashes(tmp_path / "jobs") == hashes(tmp_path / "alone")
    assert "1 threads" in found.stdout  # the job's share, though this Slurm binds nobody to it
    summary = (tmp_path / "jobs" / "summary.csv").read_text()
    assert "SLURMCluster-0" in summary
    assert list((tmp_path / "logs").glob("dask-worker-*.err"))
    assert not subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"queue": "none"}, "slurm takes no job: sbatch: error: invalid partition specified: none"),
        ({"python": "/no/such/python"}, "ended before its worker was heard of; its log in"),
    ],
)
def test_jobs_that_cannot_be_are_one_line_at_once(slurm, images, bright_model, tmp_path, more, said):
    file = describe(tmp_path, **more)
    found = run(slurm, images, "-o", tmp_path / "out", "--engine", bright_model, "--cluster", file)
    assert found.returncode == 1
    lines = found.stderr.strip().splitlines()
    assert lines[:-1] == ["4 images on slurm, up to 2 jobs"]
    assert said in lines[-1]
    assert not (tmp_path / "out").exists()

"""The script for a machine with a GPU: it goes on after failures, and says so without a GPU."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu" / "run.sh"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of commands: a Python that notes what it is asked, and fails on ``pytest`` and on the plan."""
    folder = tmp_path / "tools"
    folder.mkdir()
    python = folder / "noting"
    python.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\necho "$*"\n'
        'case "$*" in *"-m pytest"*) exit 3 ;; *"run tensorrt"*) exit 4 ;; esac\n'
    )
    python.chmod(0o755)
    return folder


def add_gpu(tools: Path) -> None:
    smi = tools / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Make-believe H100'\n")
    smi.chmod(0o755)


def call(tools: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin", "PYTHON": str(tools / "noting")}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def asked(tools: Path) -> list[str]:
    notes = tools.parent / "asked"
    return notes.read_text().splitlines() if notes.exists() else []


def test_without_a_gpu_only_the_kernels_are_built(tools: Path, tmp_path: Path) -> None:
    done = call(tools, tmp_path / "out", "--train", "nuclei")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in asked(tools)] == [["-m", "pip", "install"]]
    for part in ("tests", "tensorrt", "onnxruntime", "torch-compiled-bf16", "train-nuclei"):
        assert f"== {part}: skipped: no GPU" in done.stdout


def test_a_dry_run_runs_nothing(tools: Path, tmp_path: Path) -> None:
    add_gpu(tools)
    done = call(tools, tmp_path / "out", "--dry-run", "--size", 4096)
    assert done.returncode == 0, done.stderr
    assert asked(tools) == []
    assert "engines.py run onnxruntime --folder" in done.stdout
    assert "--size 4096" in done.stdout
    assert "train" not in done.stdout


def test_failing_parts_are_named_in_the_end(tools: Path, tmp_path: Path) -> None:
    add_gpu(tools)
    out = tmp_path / "out"
    (out / "train" / "phase").mkdir(parents=True)
    (out / "train" / "phase" / "last.pt").touch()
    trained = ("--train", "nuclei", "--train", "configs/phase.yml", "--set", "dataset_path=d")
    done = call(tools, out, *trained, "--ablation", tmp_path / "d")
    assert done.returncode == 1
    _, _, end = done.stdout.partition("\nfailed:\n")
    assert [line.split(",")[0] for line in end.splitlines()] == [
        "  tests (exit code 3",
        "  tensorrt (exit code 4",
    ]
    commands = asked(tools)
    assert sum("engines.py run" in line for line in commands) == 6
    trainings = [line for line in commands if "cellseg.train" in line]
    assert "--set dataset_path=d --set work_dir=" in trainings[0]
    assert ["--resume" in line for line in trainings] == [False, True]
    assert commands[-2].endswith("train/phase/best.pt --fp16 --heads mask,boundary,density")
    assert commands[-1].startswith(f"benchmarks/ablation.py {tmp_path}/d --out {out}/ablation --set")
    assert "test_plans.py" in (out / "tests.log").read_text()


def test_parts_can_be_chosen(tools: Path, tmp_path: Path) -> None:
    add_gpu(tools)
    done = call(tools, tmp_path / "out", "--only", "build")
    assert done.returncode == 0, done.stderr
    assert len(asked(tools)) == 1


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--size"], ["a", "--fast"]])
def test_bad_arguments(tools: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = call(tools, *(tmp_path / a if a in ("a", "b") else a for a in arguments))
    assert done.returncode == 2
    assert done.stderr
    assert asked(tools) == []

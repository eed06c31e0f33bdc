"""Several processes: the same losses as one with the whole batch."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cellseg.train.config import TrainConfig
from cellseg.train.running.device import loader_workers, open_fabric

Configure = Callable[..., TrainConfig]


def run(tmp_path: Path, name: str, config: TrainConfig, *options: str) -> list[dict[str, float]]:
    path = tmp_path / f"{name}.yml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "cellseg.train.cli", str(path), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=300)
    with (tmp_path / "work_dirs" / name / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_twice_the_batch(
    configure: Configure, tmp_path: Path
) -> None:
    """With group norm; batch norm takes its statistics in each CPU process (GPUs share them)."""
    common: dict[str, Any] = {"norm": "group", "iters": 6, "val_interval": 3, "ema": 0.9}
    one = run(tmp_path, "one", configure(batch_size=4, **common))
    two = run(tmp_path, "two", configure(batch_size=2, **common), "--devices", "2")
    assert len(one) == len(two) == 2
    for single, double in zip(one, two, strict=True):
        for key in single.keys() - {"images_s", "data_wait"}:
            assert double[key] == pytest.approx(single[key], rel=1e-4, abs=1e-6), key


def test_workers_leave_a_core_to_the_training(configure: Configure) -> None:
    assert loader_workers(configure(workers=0)) == 0
    assert loader_workers(configure(workers=5)) == 5
    assert 1 <= loader_workers(configure(workers=None)) <= 8


def test_one_process_does_not_ask_a_batch_system(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a job of several tasks Fabric would refuse them, and where srun is installed it would warn."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert open_fabric(configure(devices=1)).world_size == 1
    for name, value in {"NTASKS": "4", "JOB_NAME": "train", "PROCID": "2", "LOCALID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = open_fabric(configure(devices=1))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)

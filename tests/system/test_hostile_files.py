"""Hostile files of every kind but pictures, in a process of its own: see ``hostile_files.py``."""

import subprocess
import sys
from pathlib import Path

import pytest


def attempt(seed: int, count: int, *kinds: str) -> None:
    script = Path(__file__).with_name("hostile_files.py")
    command = [sys.executable, "-W", "error::RuntimeWarning", script, str(seed), str(count), *kinds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"seed {seed}: exit {done.returncode} at {last}\n{done.stderr[-3000:]}"


def test_hostile_files() -> None:
    attempt(0, 40, "areas", "config", "manifest", "groups", "record")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_many_hostile_files(seed: int) -> None:
    attempt(seed, 200)

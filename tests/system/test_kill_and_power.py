"""A few rounds of the kill and power test, and that it would find what it looks for."""

import json
import os
import random
import runpy
import shutil
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).with_name("kill_and_power.py")))

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and inodes are those of POSIX")


@pytest.mark.slow
def test_killed_and_without_power_nothing_differs() -> None:
    SCRIPT["main"](2, 3)


def left(root: Path, notes: Path, seed: int) -> dict[str, bytes]:
    """Return what a failure of power leaves of a copy."""
    SCRIPT["fail_power"](root, SCRIPT["Notes"](notes), random.Random(seed))
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_was_not_flushed_is_at_risk_and_nothing_else(tmp_path: Path) -> None:
    seen = set()
    for seed in range(40):
        root = tmp_path / "root"
        (root / "a").mkdir(parents=True)
        for name in ("safe", "unnamed", "empty"):
            (root / "a" / name).write_bytes(b"12345678")
        lines = []
        for path in (root / "a" / "safe", root / "a" / "unnamed"):
            state = path.stat()
            lines.append([state.st_ino, state.st_size, state.st_mtime_ns, None])
        names = {path.name: path.stat().st_ino for path in (root / "a").iterdir() if path.name != "unnamed"}
        lines.append([(root / "a").stat().st_ino, 0, 0, names])
        lines.append([root.stat().st_ino, 0, 0, {"a": (root / "a").stat().st_ino}])
        # A name that changed after its folder was flushed.
        (root / "a" / "safe").rename(root / "b")
        notes = tmp_path / "notes"
        notes.write_text("".join(json.dumps(line) + "\n" for line in lines) + "[1, 2")
        found = left(root, notes, seed)
        shutil.rmtree(root)
        assert found.pop("a/empty") in (b"12345678", b"1234" + bytes(4), b"1234", bytes(8), b"")
        assert set(found.values()) == {b"12345678"} or not found
        seen.add(tuple(sorted(found)))
    assert {("a/safe",), ("a/safe", "a/unnamed"), ("a/unnamed", "b"), ("b",)} <= seen

"""Kill the command and cut its power at any moment; what ``--resume`` then makes must be the same bytes.

    python tests/system/kill_and_power.py ROUNDS [SEED]

Not part of the suite: a round takes seconds. In each, ``cellseg-infer`` runs on two pictures in a process of
its own and ends by SIGKILL after a random time, or by itself. In every second round the power then fails:

* A file that was not flushed since its last change keeps its name, and has no bytes, zeros, or half of them.
* A name that came into a folder since that was last flushed is gone, or not; a renaming is undone, or not.

What was flushed is known because the process notes every ``fsync`` once it has returned. So this proves
that we flush what must be, in an order that survives the worst that POSIX allows, which is more than ext4,
XFS or APFS do. It does not prove that a disk keeps what it says it has flushed: for that a plug must be
pulled.

Rounds go on in the same folder until a run ends well; then results are compared, byte for byte, with those
of a run that nobody disturbed, every file with the record, and the folder must hold nothing else. After half
of these the same is run with ``--overwrite``, killed in the same way: whole results must be there all the
time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from cellseg.runtime.writers.contents import difference, listed

#: The command with a stand-in for the engine, which takes its time; every band is kept, every flush noted.
CHILD = """
import json, os, sys, time

note = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
flush = os.fsync

def fsync(handle):
    flush(handle)
    state = os.fstat(handle)
    names = None
    if os.path.isdir(f"/proc/self/fd/{handle}"):
        with os.scandir(handle) as entries:
            names = {entry.name: entry.inode() for entry in entries}
    line = json.dumps([state.st_ino, state.st_size, state.st_mtime_ns, names]) + "\\n"
    os.write(note, line.encode())

os.fsync = fsync
from cellseg.runtime import backends
from cellseg.runtime.cli import infer
from cellseg.runtime.streaming import journal
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

class Slow(LocalEngine):
    def submit(self, *arguments):
        time.sleep(0.01)
        return super().submit(*arguments)

journal.WORTH = journal.AFTER = 0.0
backends.open_backend = lambda *arguments, **options: Slow(local_spec(2, tile=40))
infer.main(prog_name="cellseg-infer")
"""


#: The page about all images, made again by every run.
PAGE = ("index.html", "summary.csv")


class Notes:
    """What the processes have flushed, by inode."""

    def __init__(self, path: Path) -> None:
        self.files: set[tuple[int, int, int]] = set()
        self.folders: dict[int, dict[str, int]] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                inode, size, changed, names = json.loads(line)
            except ValueError:
                continue  # the process was killed while it noted
            if names is None:
                self.files.add((inode, size, changed))
            else:
                self.folders[inode] = names


def listing(folder: Path) -> dict[str, int]:
    """Return the inode of every name in a folder."""
    return {item.name: item.lstat().st_ino for item in folder.iterdir()}


def folders_of(root: Path) -> list[Path]:
    return [Path(folder) for folder, _, _ in os.walk(root)]


def fail_power(root: Path, notes: Notes, rng: random.Random) -> None:
    """Leave of a folder what a failure of power may."""
    at = {folder.stat().st_ino: folder for folder in folders_of(root)}
    now = {inode: (folder, name) for folder in at.values() for name, inode in listing(folder).items()}
    for number, names in notes.folders.items():
        for name, inode in names.items():
            folder = at.get(number)
            if folder is None or not folder.is_dir() or inode not in now or now[inode] == (folder, name):
                continue
            source, target = Path(*now[inode]), folder / name
            flushed = notes.folders.get(now[inode][0].stat().st_ino, {}) if now[inode][0].is_dir() else {}
            if flushed.get(source.name) == inode or rng.random() < 0.5 or not os.path.lexists(source):
                continue
            if not os.path.lexists(target):
                source.rename(target)
            elif flushed.get(source.name) == target.lstat().st_ino:  # they have changed places
                between = root / "between"
                source.rename(between)
                target.rename(source)
                between.rename(target)
    for folder in folders_of(root):
        if not folder.is_dir():
            continue
        flushed = notes.folders.get(folder.stat().st_ino, {})
        for name, inode in listing(folder).items():
            if flushed.get(name) != inode and rng.random() < 0.5:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for folder in folders_of(root):
        for path in folder.iterdir():
            state = path.lstat()
            if not path.is_file() or (state.st_ino, state.st_size, state.st_mtime_ns) in notes.files:
                continue
            kept = rng.choice([0, 0, state.st_size // 2, state.st_size])
            zeros = rng.choice([0, state.st_size - kept])
            path.write_bytes(path.read_bytes()[:kept] + bytes(zeros))


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = np.zeros((300, 120), np.uint8)
    for y, x in zip(rng.integers(0, 290, 120), rng.integers(0, 112, 120), strict=True):
        made[y : y + rng.integers(4, 9), x : x + rng.integers(4, 8)] = rng.integers(150, 250)
    return made


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file but those that say when and how fast."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html", *PAGE)
    }


class Bench:
    """Pictures, what should become of them, and counts."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.slides = [root / f"s{number}.tif" for number in range(2)]
        for number, path in enumerate(self.slides):
            tifffile.imwrite(path, picture(number))
        self.kills = self.failures = self.checked = self.replaced = 0
        seconds = time.perf_counter()
        assert self.run(root / "whole", []) == 0
        self.seconds = time.perf_counter() - seconds
        self.whole = everything(root / "whole")

    def run(self, out: Path, options: list[str], patience: float | None = None) -> int:
        """Run the command; return its exit code, negative where it was killed."""
        command = [sys.executable, "-c", CHILD, f"{out}.notes", *self.slides, "-o", out, "--csv", "--levels"]
        command += ["0", "255", "--tile", "40", "--batch", "2", "-q", *options]
        with subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            try:
                _, error = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return -9
        if process.returncode:
            raise AssertionError(f"exit {process.returncode} in {out}: {error.decode()[-2000:]}")
        return 0

    def disturbed(self, out: Path, options: list[str], attempt: int = 0) -> bool:
        """Run once, kill it somewhere, let the power fail or not; return whether it had ended well."""
        # Half of the time goes into imports, and all takes longer when the machine has more to do.
        patience = self.rng.uniform(0.3, 1.15) * self.seconds * (1 + attempt / 5)
        well = self.run(out, options, patience) == 0
        self.kills += not well
        if self.rng.random() < 0.5 and out.exists():
            self.failures += 1
            fail_power(out, Notes(Path(f"{out}.notes")), self.rng)
        return well

    def check(self, out: Path) -> None:
        folders = [path for path in sorted(out.iterdir()) if path.name not in PAGE]
        assert [path.name for path in folders] == ["s0", "s1"], folders
        for folder in folders:
            harm = difference(folder, listed(folder))
            assert harm is None, f"{folder}: {harm}"
        found = everything(out)
        assert found == self.whole, [n for n in {*found, *self.whole} if found.get(n) != self.whole.get(n)]
        self.checked += 1

    def story(self, out: Path) -> None:
        """One folder, from nothing to whole results, and perhaps over again."""
        attempt = 0
        while not self.disturbed(out, ["--resume"], attempt):
            attempt += 1
        if self.rng.random() < 0.5:
            assert self.run(out, ["--resume"]) == 0
        self.check(out)
        if self.rng.random() < 0.5:
            self.disturbed(out, ["--overwrite"])
            for name in ("s0", "s1"):
                harm = difference(out / name, listed(out / name))
                assert harm is None, f"{out / name}: {harm}"
            assert self.run(out, ["--resume"]) == 0
            self.replaced += 1
            self.check(out)


def main(rounds: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seed)
        story = 0
        while bench.kills < rounds:
            out = bench.root / f"out{story}"
            story += 1
            try:
                bench.story(out)
            except AssertionError:
                shutil.copytree(out, Path(tempfile.mkdtemp()) / "left", symlinks=True)
                raise
            shutil.rmtree(out)
            counts = (
                f"{bench.kills} kills, {bench.failures} failures of power, {bench.checked} results compared"
            )
            print(f"{counts}, {bench.replaced} of them after an overwrite: 0 differences", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)

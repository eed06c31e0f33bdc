"""Write constraints.txt and the lock files next to this script, from pyproject.toml. `make lock` calls it.

    python requirements/lock.py [--upgrade]

Locked are the versions that the project is tested with, for Python 3.11 and newer and every platform, with
the hashes of all their files. Without ``--upgrade`` what is locked stays, and only what is missing is added.

PyTorch is the exception: its CPU builds come from an index of their own or from a local build, so that its
hash differs from place to place. It is pinned by version alone, in ``constraints.txt``; the packages for CUDA
that the public build of it wants are not pinned, for no test runs on them.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent

HELD = {"torch": "2.13.0"}  # newer ones on the public index are not tried yet
# In the extras' own environment: spatialdata keeps to older releases of Dask; what it wants of fsspec for
# buckets, none of our tests needs, and it holds back much else.
FREE = re.compile(r"(dask|distributed)==")
OVERRIDE = "fsspec>=2024.9\n"
UNHASHED = re.compile(r"(torch|triton|cuda-[\w-]+|nvidia-[\w-]+)==")
HEAD = """\
# Made by `make lock`; do not edit. The versions that the project is tested with, {what}.
# Why PyTorch has no hash: requirements/lock.py.
"""


def compile_lock(options: list[str], sources: list[str], text: str = "", free: bool = False) -> str:
    """Return what uv resolves, with hashes, for Python 3.11 and newer on any platform.

    Where it is `free`, the environment is one of its own: what stands in its way is not held.
    """
    held = HERE / ".held.txt"
    kept = ROOT / "constraints.txt"
    lines = [f"{name}=={version}" for name, version in HELD.items()]
    if kept.exists() and "--upgrade" not in sys.argv:
        known = [line for line in kept.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
        lines += [line for line in known if not (free and FREE.match(line))]
    held.write_text("\n".join(lines) + "\n", encoding="utf-8")
    override = HERE / ".override.txt"
    override.write_text(OVERRIDE if free else "", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "--constraints", str(held)),
        *("--override", str(override)),
        *options,
        *sources,
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    finally:
        held.unlink()
        override.unlink()
    if done.returncode:
        sys.exit(f"uv could not resolve {' '.join([*options, *sources])}:\n{done.stderr}")
    return done.stdout


def blocks(lock: str) -> list[str]:
    """Return a lock's requirements, each with its hashes."""
    return re.findall(r"^\S.*(?:\n {4}.*)*", lock, re.MULTILINE)


def main() -> None:
    """Resolve everything together once, so that all locks agree, then write each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    everything = compile_lock(["--extra", "dev", "--extra", "docs", "--group", "release"], ["pyproject.toml"])
    versions = [block.partition(" \\")[0].rstrip() for block in blocks(everything)]
    pinned = [line for line in versions if line.startswith("torch==") or not UNHASHED.match(line)]
    head = HEAD.format(what="without hashes, for pip's --constraint")
    (ROOT / "constraints.txt").write_text(head + "\n".join(pinned) + "\n", encoding="utf-8")
    backend = "\n".join(project["build-system"]["requires"])
    kinds = {
        "base": (["pyproject.toml"], [], ""),
        "build": (["-"], [], backend),  # what a build takes
        "dev": (["pyproject.toml"], ["--extra", "dev", "--extra", "docs"], ""),
        "release": ([], ["--group", "release"], ""),  # what `make wheel` and `make lock` take
        "extras": (["pyproject.toml"], ["--extra", "spatial", "--group", "extras"], ""),  # `make test-extras`
    }
    for name, (sources, options, text) in kinds.items():
        lock = compile_lock(options, sources, text, free=name == "extras")
        found = [block for block in blocks(lock) if not UNHASHED.match(block)]
        head = HEAD.format(what=f"with hashes ({name})")
        (HERE / f"{name}.txt").write_text(head + "\n".join(found) + "\n", encoding="utf-8")
        print(f"requirements/{name}.txt: {len(found)} packages")


if __name__ == "__main__":
    main()

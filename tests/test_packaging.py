"""How the package is built and pinned: what it says without a compiler, what the pins cover."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_a_missing_compiler_is_said_in_words(tmp_path: Path) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--force",
            "--build-lib",
            str(tmp_path),
            "--build-temp",
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("cellseg: no C compiler was found")
    assert "install a wheel" in last


def pins(path: Path) -> dict[str, set[str]]:
    """Return the versions of each package that a file pins; several where they differ by Python."""
    found: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line[:1].isalpha():
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier)[2:])
    return found


def declared() -> dict[str, Requirement]:
    """Return what development and a release install, as declared in pyproject.toml."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *PROJECT["dependency-groups"]["release"], *extras["docs"]]
    waiting = list(extras["dev"])
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == "cellseg":
            waiting += [line for extra in requirement.extras for line in extras[extra]]
        else:
            lines.append(str(requirement))
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


@pytest.mark.parametrize(("name", "requirement"), sorted(declared().items()))
def test_what_is_declared_is_pinned(name: str, requirement: Requirement) -> None:
    pinned = pins(ROOT / "constraints.txt").get(name)
    assert pinned, f"{name} is declared but not in constraints.txt; run `make lock`"
    for version in pinned:
        assert requirement.specifier.contains(version), (
            f"{requirement} does not allow {version}; run `make lock`"
        )


def test_nothing_declared_has_an_upper_bound() -> None:
    project = PROJECT["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    bounded = [line for line in lines if any(part.operator != ">=" for part in Requirement(line).specifier)]
    assert not bounded
    assert ">=" in project["requires-python"]
    assert "<" not in project["requires-python"]


@pytest.mark.parametrize("name", ["base", "build", "dev", "release"])
def test_locks_have_hashes_and_agree(name: str) -> None:
    path = ROOT / "requirements" / f"{name}.txt"
    every = pins(ROOT / "constraints.txt")
    for package, versions in pins(path).items():
        assert versions <= every[package], f"{package} in {path.name}; run `make lock`"
    entries = re.findall(r"^\w.*(?:\n {4}.*)*", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) >= len(pins(path)) > 0
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]


def test_the_base_lock_is_whole_and_has_no_framework() -> None:
    locked = pins(ROOT / "requirements" / "base.txt")
    for line in PROJECT["project"]["dependencies"]:
        assert canonicalize_name(Requirement(line).name) in locked
    assert not {"torch", "onnx", "matplotlib", "scipy"} & set(locked)


def test_the_bill_of_materials_names_what_the_wheel_carries() -> None:
    bundled = runpy.run_path(str(ROOT / ".ci" / "bundled.py"))["bundled"]()
    listed = {part["properties"][0]["value"] for part in bundled}
    foreign = [*ROOT.glob("runtime/**/*.min.js"), *ROOT.glob("runtime/**/*.onnx")]
    assert listed == {f"cellseg/{path.relative_to(ROOT).as_posix()}" for path in foreign}
    assert all(part["licenses"] and part["hashes"][0]["alg"] == "SHA-256" for part in bundled)

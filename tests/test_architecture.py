"""The arrows of the house: who may import whom, and what must never be imported early."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Each part and the parts it may import.
ARROWS = {"runtime": set(), "train": {"runtime"}, "export": {"train", "runtime"}}
#: What the base install lacks. The runtime must import without it; what needs one says so when used.
# fmt: off
OPTIONAL = {
    "torch", "onnx", "onnxscript", "lightning", "lightning_fabric", "kornia", "nncf", "tensorboard",
    "matplotlib", "scipy", "skimage", "shapely", "sklearn", "PIL", "onnxruntime",
    "tensorrt", "tensorrt_rtx", "openslide", "Cython", "setuptools",
    "dask", "dask_jobqueue", "distributed", "starlette", "uvicorn",
}
#: Modules that are nothing without an extra; others import them when they are asked for.
LEAVES = {
    "cellseg.runtime.cluster.run", "cellseg.runtime.cluster.worker",
    "cellseg.runtime.view.serve", "cellseg.runtime.view.server",
}
#: What costs more than a blink to import; ``--help`` must do without.
HEAVY = OPTIONAL | {
    "numpy", "cv2", "yaml", "imagecodecs", "openvino", "pyarrow", "pydantic", "tifffile", "zarr", "rich",
}
# fmt: on


def sources(*parts: str) -> list[Path]:
    return [path for part in parts for path in sorted((ROOT / part).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the relative level of each import, ``import_module("…")`` included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "cellseg":
            yield from ((f"cellseg.{alias.name}", 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((arg.value, 0) for arg in node.args if isinstance(arg, ast.Constant))


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sources(*ARROWS), ids=name_of)
def test_arrows(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    depth = len(path.relative_to(ROOT).parts) - 1
    for name, level in imports(path):
        assert level <= depth, f"a relative import leaves {part}: use cellseg.… across parts"
        head, _, rest = name.partition(".")
        if head == "cellseg":
            target = rest.partition(".")[0]
            assert target != part, f"{name}: inside a part imports are relative"
            assert target in ARROWS[part], f"{part} may not import cellseg.{target}"
        assert head not in {*ARROWS, "csrc", "tests", "benchmarks"}, f"{name} is no installed name"


@pytest.mark.parametrize("path", sorted((ROOT / "csrc").glob("*.p[yx][xd]")), ids=name_of)
def test_kernels_import_nothing_of_ours(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(from|import|cimport)\s+(cellseg|runtime|train|export)\b", text, re.MULTILINE)


def test_runtime_imports_on_the_base_install() -> None:
    """Every module of the runtime, in an interpreter that cannot see what the base install lacks."""
    code = """
import importlib, pkgutil, sys
hidden = set(sys.argv[1:])

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"hidden: {name}", name=name)

sys.meta_path.insert(0, Hide())
import cellseg.runtime
for module in pkgutil.walk_packages(cellseg.runtime.__path__, "cellseg.runtime."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if not str(error).startswith("hidden: ") or module.name not in %r:
            raise
    print(module.name)
"""
    imported = set(python(code % LEAVES, *OPTIONAL).split())
    written = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources("runtime")}
    assert {f"cellseg.{name.removesuffix('.__init__')}" for name in written} <= imported | {"cellseg.runtime"}


def test_tensorrt_lives_in_two_files() -> None:
    users = [
        name_of(path)
        for path in sources(*ARROWS)
        if any(name.partition(".")[0].startswith("tensorrt") for name, _ in imports(path))
    ]
    assert len(users) <= 2, users


def test_no_module_is_named_after_a_dependency() -> None:
    requirements = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    wanted = {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in requirements} - {"cellseg"}
    installed = packages_distributions()
    names = wanted | {
        module
        for module, owners in installed.items()
        if wanted & {owner.lower().replace("-", "_") for owner in owners}
    }
    stems = {path.parent.name if path.stem == "__init__" else path.stem for path in sources(*ARROWS)}
    stems |= {path.stem for path in (ROOT / "csrc").glob("*.pyx")}
    assert not stems & names


def test_commands() -> None:
    names = ("train", "export", "infer", "eval", "tune", "view")
    assert list(PROJECT["scripts"]) == [f"cellseg-{name}" for name in names]


@pytest.mark.parametrize(("command", "target"), PROJECT["scripts"].items())
def test_help_is_light(command: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert find_spec(module), f"{command} is declared but {module} does not exist"
    code = f"""
import sys
from {module} import {attribute} as main
sys.argv = ["{command}", "--help"]
try:
    main()
except SystemExit as leave:
    assert leave.code == 0, leave.code
print("imported:", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    shown, _, modules = python(code).rpartition("imported:")
    assert shown.startswith(f"Usage: {command}")
    assert not set(modules.split()) & HEAVY


def test_top_level() -> None:
    """``cellseg`` is a namespace without a folder of its own, and the parts stay where they are."""
    assert not (ROOT / "cellseg").exists()
    assert all((ROOT / name).is_dir() for name in ("train", "export", "runtime", "csrc", "benchmarks"))

"""The arrows of the house: who may import whom, and what must never be imported early."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
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
    "dask", "dask_jobqueue", "distributed", "starlette", "uvicorn", "s3fs", "botocore",
    "pandas", "geopandas", "anndata", "spatialdata", "xarray", "napari", "npe2", "magicgui", "qtpy", "PyQt6",
}
#: Modules that are nothing without an extra; others import them when they are asked for.
LEAVES = {
    "cellseg.runtime.cluster.run", "cellseg.runtime.cluster.worker",
    "cellseg.runtime.cluster.slides", "cellseg.runtime.cluster.slide_tasks",
    "cellseg.runtime.cluster.checks", "cellseg.runtime.cluster.handout",
    "cellseg.runtime.view.serve", "cellseg.runtime.view.server", "cellseg.runtime.plugin.widget",
}
#: What costs more than a blink to import; ``--help`` must do without.
HEAVY = OPTIONAL | {
    "numpy", "cv2", "yaml", "imagecodecs", "openvino", "pyarrow", "pydantic", "tifffile", "zarr", "rich",
    "fsspec",
}
# fmt: on
#: The wings of the runtime, from the ground up; each may import those below it, none of its own layer.
#: A module at the top of the runtime is a wing of its own.
LAYERS = (
    ("errors",),
    ("kernels", "common"),
    ("options",),
    ("model", "geometry", "intensity"),
    ("backends", "readers", "instances"),
    ("evaluation", "sizing", "writers"),
    ("streaming",),
    ("results",),
    ("pipeline",),
    ("tuning", "batch", "spans", "view", "plugin", "evaluate"),
    ("cluster",),
    ("cli", "testing"),
)
#: The same of the training.
LAYERS_OF_TRAIN = (
    ("config", "looks", "checkpoint"),
    ("data", "models"),
    ("losses", "weights"),
    ("running",),
    ("cli",),
)
#: Lines of the longest file, and of the longest function without its docstring.
MOST_LINES, MOST_OF_A_FUNCTION = 400, 60


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


def wing_of(path: Path) -> str:
    """Return the folder of its part that a module is in, or the module itself."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def wings_imported(path: Path) -> set[str]:
    """Return the wings of its part that a module imports: at once, for types alone, or late."""
    package = path.relative_to(ROOT).parent.parts[1:]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *(node.module or "").split(".")) if node.module else base
            found |= {target[0]} if target else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sources("runtime", "train") if path != ROOT / path.parent.name / "__init__.py"],
    ids=name_of,
)
def test_wings(path: Path) -> None:
    """A wing imports what is below it, for types or late too, so that there is no cycle among wings.

    A module at the top of its part is a wing of its own.
    """
    part = path.relative_to(ROOT).parts[0]
    layers = LAYERS if part == "runtime" else LAYERS_OF_TRAIN
    height = {wing: at for at, wings in enumerate(layers) for wing in wings}
    wing = wing_of(path)
    assert wing in height, f"{part}/{wing} is no wing: put it into one, or into the layers with a reason"
    for other in wings_imported(path) - {wing}:
        assert other in height, f"{other} is no wing of {part}"
        assert height[other] < height[wing], f"{wing} may not import {other}; it may what lies below it"


def test_no_loose_modules() -> None:
    """Besides the wings the runtime holds its errors, and the functions that Python asks for."""
    loose = {path.stem for path in (ROOT / "runtime").glob("*.py")}
    assert loose == {"__init__", "errors", "evaluate", "pipeline"}
    wings = {path.parent.name for path in (ROOT / "runtime").glob("*/__init__.py")}
    assert wings | {"errors", "evaluate", "pipeline"} <= {wing for wings in LAYERS for wing in wings}


def test_the_drawing_shows_the_layers() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawing = re.findall(r"```text\n(.*?)```", text, re.DOTALL)[1]
    drawn = [set(re.split(r" {3,}", line)[0].split()) for line in drawing.splitlines()]
    assert drawn == [set(wings) for wings in reversed(LAYERS)]


def modules_imported(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports as soon as it is imported itself."""
    part = path.relative_to(ROOT).parts[0]
    package = path.relative_to(ROOT).parent.parts
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])]).removeprefix("cellseg.")
            yield from (f"{module}.{alias.name}" for alias in node.names)
            if module.count(".") or module != part:
                yield module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            pending += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            pending += [*node.body, *node.orelse, *node.finalbody, *chain(*(h.body for h in node.handlers))]


def test_no_module_needs_itself() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sources(*ARROWS)
    }
    graph = {
        name: {other for other in modules_imported(path) if other in paths and other != name}
        for name, path in paths.items()
    }
    for name, others in graph.items():  # a package imports its modules, and these not it, for its names
        graph[name] = {other for other in others if not name.startswith(f"{other}.")}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules


def lengths_of_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name of each function and how many lines it has without its docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None and first.end_lineno:
                length -= first.end_lineno - first.lineno + 1
            yield f"{name_of(path)}: {node.name}", length


def test_files_and_functions_are_short() -> None:
    kernels = [path for path in (ROOT / "csrc").iterdir() if path.suffix in (".pyx", ".pxd")]
    every = [*sources(*ARROWS, "benchmarks"), *kernels]
    files = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in every}
    functions = dict(chain(*map(lengths_of_functions, sources(*ARROWS, "benchmarks"))))
    for found, most in ((files, MOST_LINES), (functions, MOST_OF_A_FUNCTION)):
        long = {name: length for name, length in found.items() if length > most}
        assert not long, f"over {most} lines; cut into what it does"


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
    names -= {"testing"}  # what anndata's wheel carries besides itself
    stems = {path.parent.name if path.stem == "__init__" else path.stem for path in sources(*ARROWS)}
    stems |= {path.stem for path in (ROOT / "csrc").glob("*.pyx")}
    assert not stems & names


def test_commands() -> None:
    names = ("train", "export", "infer", "eval", "tune", "view")
    assert list(PROJECT["scripts"]) == [f"cellseg-{name}" for name in names]


@pytest.mark.parametrize(("command", "target"), PROJECT["scripts"].items())
def test_help_is_light(command: str, target: str) -> None:
    module, _, attribute = target.removesuffix(".run").partition(":")
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


@pytest.mark.parametrize("target", PROJECT["scripts"].values(), ids=PROJECT["scripts"])
def test_help_ends_with_examples(target: str) -> None:
    """Three lines that can be typed as they are: every option in them is one that the command has."""
    module, _, attribute = target.removesuffix(".run").partition(":")
    main = getattr(import_module(module), attribute)
    for command in (main, *main.subcommands.values()):
        assert len(command.examples) == 3, command.name
        known = {
            option
            for each in (main, *main.subcommands.values())
            for one in each.params
            for option in one.opts
        }
        for line, text in command.examples:
            assert line.startswith(str(main.name)), line
            assert text.endswith("."), text
            assert {word for word in line.split() if word.startswith("-")} <= known, line


def test_top_level() -> None:
    """``cellseg`` is a namespace without a folder of its own, and the parts stay where they are."""
    assert not (ROOT / "cellseg").exists()
    assert all((ROOT / name).is_dir() for name in ("train", "export", "runtime", "csrc", "benchmarks"))

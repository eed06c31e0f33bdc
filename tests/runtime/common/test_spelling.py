"""Messages name options in the language of whoever reads them."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from cellseg.runtime.cli.infer import main
from cellseg.runtime.common.spelling import option, written_as
from cellseg.runtime.options import SegmentOptions

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"
NAMES = [field.name for field in dataclasses.fields(SegmentOptions)]
#: What segment(), segment_many() and open_backend() take besides.
OTHERS = ["output", "model", "cluster", "trust_plan", "fallback"]
#: What is read by who typed a command, and by nobody else.
COMMANDS = {"cli", "view", "testing"}


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_a_command_line_names_the_options_that_the_command_has(name: str) -> None:
    known = {flag for each in main.params for flag in (*each.opts, *each.secondary_opts)}
    with written_as("command"):
        assert option(name) in known
    assert option(name) == name


def test_values_are_written_as_they_are_given() -> None:
    assert option("levels", (5, 3)) == "levels=(5, 3)"
    with written_as("command"):
        assert option("levels", (5, 3)) == "--levels 5 3"
        assert option("channels", ["a b", "c"]) == "--channels 'a b,c'"
        assert option("rescale", False) == "--no-rescale"
    with written_as("configuration"):
        assert option("channels", ["a", "b"]) == "channels: [a, b]"
        assert option("overwrite", True) == "overwrite: true"


def messages(path: Path) -> list[str]:
    """Return the texts in a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [node.value for node in texts if isinstance(node.value, str)]


def test_no_message_writes_an_option_out_as_if_all_typed_commands() -> None:
    """They are written by :func:`option`, apart from those of other commands."""
    with written_as("command"):
        flags = {option(name) for name in [*NAMES, *OTHERS]}
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(flags)))})(?![\w-])")
    paths = [path for path in RUNTIME.rglob("*.py") if path.relative_to(RUNTIME).parts[0] not in COMMANDS]
    found = [
        f"{path.relative_to(RUNTIME)}: {text}"
        for path in paths
        if path.name != "spelling.py"
        for text in messages(path)
        if pattern.search(text) and "vips tiffsave" not in text and "OUT.tif --tile" not in text
    ]
    assert not found

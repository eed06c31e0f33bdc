"""The examples in the README and the docs run, and the options they show exist."""

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the slide that the examples name."""
    picture = np.full((160, 160), 20, np.uint8)
    for x in range(20, 160, 40):
        cv2.circle(picture, (x, 60), 9, 180, -1)
    tifffile.imwrite(tmp_path / "my_slide.tif", picture)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
@pytest.mark.usefixtures("slide")
def test_python(page: Path) -> None:
    """The blocks of a page, one after the other, as someone reads them."""
    names: dict[str, object] = {}
    for text in blocks(page, "python"):
        exec(compile(text, page.name, "exec"), names)
    if "result" in names:
        assert names["result"].count == 4


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """Yield page, command and options of every line that calls one of ours."""
    for page in PAGES:
        for text in [*blocks(page, "sh"), *blocks(page, "text")]:
            for line in text.splitlines():
                found = re.search(rf"\b(?:{'|'.join(SCRIPTS)})(?:\s.*|$)", line)
                if found:
                    words = shlex.split(found[0], comments=True)
                    yield page.name, words[0], words[1:]


@pytest.mark.parametrize(("page", "name", "words"), list(commands()))
def test_shown_options_exist(page: str, name: str, words: list[str]) -> None:
    command = load(name)
    if words and words[0] in getattr(command, "subcommands", {}):
        command = command.subcommands[words[0]]
    known = {flag for option in command.params for flag in [*option.opts, *option.secondary_opts]} | {
        "--help"
    }
    shown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert shown <= known


def load(name: str) -> click.Command:
    module, _, attribute = SCRIPTS[name].removesuffix(".run").partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def test_the_tables_of_options_name_real_ones() -> None:
    """Options in running text and tables, of whatever command."""
    known = {"--help", "--constraint", "--upgrade"}
    for name in SCRIPTS:
        command = load(name)
        for each in [command, *getattr(command, "subcommands", {}).values()]:
            known |= {flag for option in each.params for flag in [*option.opts, *option.secondary_opts]}
    for page in PAGES:
        if page.stem in ("changelog", "models"):
            continue
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", "".join(re.findall(r"`[^`\n]+`", text))))
        assert shown <= known, f"{page.name}: {sorted(shown - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_into_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_figures_are_those_of_the_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        readme = importlib.import_module("readme")
    finally:
        sys.path.pop(0)
    for page in readme.PAGES:
        text = page.read_text(encoding="utf-8")
        assert readme.fill(text) == text, f"{page.name}: run python benchmarks/readme.py"


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    contents = "".join(re.findall(r"```{toctree}.*?```", index, re.DOTALL))
    listed = set(re.findall(r"^(\w+)$", contents, re.MULTILINE))
    assert {page.stem for page in PAGES[1:]} == listed | {"index"}


def test_the_drawing_has_every_wing() -> None:
    wings = {path.parent.name for path in (ROOT / "runtime").glob("*/__init__.py")}
    for page in (ROOT / "docs" / "design.md", ROOT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        assert not {wing for wing in wings - {"testing"} if not re.search(rf"\b{wing}\b", text)}, page.name

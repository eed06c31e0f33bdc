"""How the site is built; ``make docs`` calls it. Nothing in the pages comes from another host."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
copyright = f"{author}, Apache-2.0"  # Sphinx wants this name
version = release = PROJECT["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"cellseg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = False
napoleon_use_rtype = False


def all_commands() -> list[tuple[str, str, Any]]:
    """Return name, import path and command of all commands, subcommands after their command."""
    found = []
    for name, target in PROJECT["scripts"].items():
        target = target.removesuffix(".run")  # the command itself, not how a process of it is run
        module, _, attribute = target.partition(":")
        values = vars(importlib.import_module(module))
        main = values[attribute]
        found.append((name, target, main))
        for each in getattr(main, "subcommands", {}).values():
            (variable,) = [key for key, value in values.items() if value is each]
            found.append((each.name, f"{module}:{variable}", each))
    return found


def write_commands(_: Any, page: str, source: list[str]) -> None:
    """Put a section for every command into the page of commands, made from the code."""
    if page == "commands":
        text = ""
        for name, target, command in all_commands():
            text += f"```{{eval-rst}}\n.. click:: {target}\n   :prog: {name}\n```\n\n"
            lines = [f"# {what}\n{line}" for line, what in getattr(command, "examples", ())]
            if lines:
                text += "Examples:\n\n```sh\n" + "\n\n".join(lines) + "\n```\n\n"
        source[0] = source[0].replace("<!-- commands -->", text)


def hide_fields(_: Any, what: str, *__: Any) -> tuple[str, None] | None:
    """Show no signature of a class: its fields are listed below it, with what they mean."""
    return ("", None) if what == "class" else None


def setup(app: Any) -> None:
    """Tell Sphinx."""
    app.connect("autodoc-process-signature", hide_fields)
    app.connect("source-read", write_commands)

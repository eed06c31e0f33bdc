"""How an option is written where the user can set it: in a call, on a command line, in a configuration.

Messages come from deep inside and name an option as the fix. Whoever reads one typed a command, or wrote
Python, or a configuration; each wants to see it in that language. Commands say once, around all they do,
which it is.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any, Literal

Language = Literal["python", "command", "configuration"]
#: Options whose name on the command line is another than in a call.
_COMMAND_NAMES = {
    "pixel_size": "--mpp",
    "output": "-o",
    "rescale": "--no-rescale",
    "engine": "--backend",
    "model": "--engine",
}
_language: Language = "python"


@contextlib.contextmanager
def written_as(language: Language) -> Iterator[None]:
    """Write options in a language in all messages that are made inside, in every thread."""
    global _language  # a process is a command, or it is not
    before, _language = _language, language
    try:
        yield
    finally:
        _language = before


def language() -> Language:
    """Return the language that messages are written in now."""
    return _language


def option(name: str, value: Any = None) -> str:
    """Return an option as the user would write it.

    Parameters
    ----------
    name
        As a keyword of :func:`cellseg.runtime.segment`.
    value
        What to set it to; ``True`` or ``False`` for a switch, a list of any length, or a tuple of
        numbers; without it, the option's name alone.

    Examples
    --------
    >>> option("channels", ["DAPI"]), option("pixel_size")
    ("channels=['DAPI']", 'pixel_size')
    >>> with written_as("command"):
    ...     print(option("channels", ["DAPI", "Cy5"]), option("pixel_size"), option("skip_bad_tiles", True))
    --channels DAPI,Cy5 --mpp --skip-bad-tiles
    """
    if _language == "python":
        return name if value is None else f"{name}={value!r}"
    if _language == "configuration":
        return name if value is None else f"{name}: {_yaml(value)}"
    flag = _COMMAND_NAMES.get(name, "--" + name.replace("_", "-"))
    if value is None or isinstance(value, bool):
        return flag
    if isinstance(value, tuple):
        return f"{flag} {' '.join(f'{number:g}' for number in value)}"
    items = value if isinstance(value, list) else [value]
    return f"{flag} {shlex.quote(','.join(map(str, items)))}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)

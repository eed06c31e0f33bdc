"""The options of ``segment()`` as options of a command, made from :mod:`cellseg.runtime.options`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..errors import UsageError
from ..options import OPTIONS, Choice, Number, Option, Pair, SegmentOptions, Switch, Whole, flag
from . import common

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def segment_options(function: _Decorated) -> _Decorated:
    """Add all options of :func:`~cellseg.runtime.segment` to a command."""
    defaults = SegmentOptions()
    for name, option in reversed(list(OPTIONS.items())):
        function = _made(name, option, getattr(defaults, name))(function)
    return function


def chosen(choices: Mapping[str, Any]) -> SegmentOptions:
    """Return the options that were given on the command line, by click's names.

    Raises
    ------
    UsageError
        A text stands for nothing.
    """
    values: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        value = choices[parameter(name, option)]
        if value is None:
            continue
        if isinstance(option.kind, Switch):
            values[name] = not value if option.off else value
        else:
            try:
                values[name] = option.kind.read(value) if isinstance(value, str) else value
            except ValueError:
                said = parameter(name, option).replace("_", "-")
                raise UsageError(f"--{said} is '{value}'; wanted {option.kind.wanted}") from None
    return SegmentOptions(**values)


def parameter(name: str, option: Option) -> str:
    """Return the name by which click hands over an option's value."""
    return f"no_{flag(name, option)}" if option.off else flag(name, option)


def _made(name: str, option: Option, default: Any) -> Callable[[_Decorated], _Decorated]:
    """Return click's decorator for one option."""
    kind = option.kind
    given: dict[str, Any] = {
        "cls": common.Option,
        "group": "Advanced" if option.advanced else option.group,
        "help": option.off or option.text,
        "metavar": option.metavar,
    }
    if isinstance(kind, Switch):
        given["is_flag"] = True
    elif default is not None:
        given |= {"default": default, "show_default": True}
    if isinstance(kind, Choice):
        given["type"] = click.Choice(kind.names)
    elif isinstance(kind, Whole):
        given["type"] = click.IntRange(kind.low)
    elif isinstance(kind, Number):
        given["type"] = click.FloatRange(
            kind.low, None if kind.high == float("inf") else kind.high, kind.above
        )
    elif isinstance(kind, Pair):
        given |= {"type": float, "nargs": 2}
    return click.option(f"--{parameter(name, option).replace('_', '-')}", **given)

"""How large the parts of an image are that workers compute: ``--span``."""

from __future__ import annotations

import math
from typing import Literal, cast

from ..common.bounded import brief
from ..common.spelling import option
from ..errors import UsageError

#: So many megapixels; as suits images and workers; or an image is never shared.
Span = float | Literal["auto", "none"]


def parse_span(text: str) -> Span:
    """Read the value of ``--span``.

    Raises
    ------
    UsageError
        It is none.

    Examples
    --------
    >>> parse_span("auto"), parse_span("200")
    ('auto', 200.0)
    """
    try:
        span = text if text in ("auto", "none") else float(text)
    except ValueError:
        span = text
    check_span(cast("Span", span))
    return cast("Span", span)


def check_span(span: Span) -> None:
    """Raise :class:`UsageError` where a span is not as of :data:`Span`."""
    if span in ("auto", "none"):
        return
    if isinstance(span, bool) or not isinstance(span, int | float) or not 0 < span < math.inf:
        raise UsageError(f"{option('span')} {brief(span)}: wanted auto, none, or megapixels such as 200")

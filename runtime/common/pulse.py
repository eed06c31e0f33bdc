"""A sign of life of long work that tells of no progress: whoever watches over it sees that it moves on.

One count for the whole process; a worker of a cluster does one thing at a time.
"""

from __future__ import annotations

import itertools

_COUNT = itertools.count(1)
_last = 0


def beat() -> None:
    """Say that something was done: some pixels, some bytes, a file."""
    global _last
    _last = next(_COUNT)


def beats() -> int:
    """Return how often that was said."""
    return _last

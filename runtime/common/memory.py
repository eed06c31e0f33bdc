"""How much memory there is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Where a container's limit stands, by version of the kernel's groups; seen from within.
_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this machine has, or this container may take; ``None`` where nobody says.

    Parameters
    ----------
    root
        Where the system's files lie.
    """
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max": there is none
            found.append(int((root / name).read_text()))
    return min((each for each in found if each > 0), default=None)

"""Keep the C heap from growing with the length of a run.

Buffers of changing sizes, allocated and freed by a dozen threads, leave holes that glibc's allocator
holds on to: resident memory creeps up for hundreds of megapixels. Commands therefore ask for large
blocks to go back to the system at once. A library must not: it is the process's own business.
"""

from __future__ import annotations

import ctypes
import sys

#: ``mallopt`` parameters of glibc's ``malloc.h``.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
#: Blocks of this many bytes and more are mapped by themselves, and unmapped when freed.
LARGE = 1 << 20
#: Heaps that threads share.
ARENAS = 2


def steady_heap() -> bool:
    """Settle how this process's heap behaves; call before threads start.

    Returns
    -------
    bool
        Whether the C library took it; others than glibc have no such knobs.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    taken = [mallopt(_M_MMAP_THRESHOLD, LARGE), mallopt(_M_ARENA_MAX, ARENAS)]
    return all(taken)

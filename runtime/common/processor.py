"""Which processor this is: what was compiled for one may not run on another."""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path

#: Where Linux describes the processor.
CPUINFO = Path("/proc/cpuinfo")
#: What it says of a processor that does not change from moment to moment or from core to core.
LASTING = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "bugs",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip


@functools.cache
def processor() -> str:
    """Return all that is known of the processor, as one word."""
    told = [platform.system(), platform.machine()]
    try:
        first = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        told.append(platform.processor())
    else:
        told += [line for line in first.splitlines() if line.partition(":")[0].strip() in LASTING]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]

"""Which NVIDIA GPUs there are, asked of the driver alone.

Nothing else is loaded: importing an engine on a machine without a GPU can be slow, and with some
even crashes.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
#: NVIDIA's management library, which comes with the driver.
_MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
#: ``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR`` of the CUDA driver API.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU."""

    #: Number in CUDA's order, as in ``cuda:0``.
    index: int
    #: As the driver names it.
    name: str
    #: Compute capability, for example (9, 0).
    capability: tuple[int, int]
    #: Memory in bytes.
    memory: int


@functools.cache
def list_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the driver offers to this process; none where there is no driver."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, index) for index in range(count.value))


@functools.cache
def driver_version() -> str:
    """Return the release of the NVIDIA driver, for example ``580.95.05``; empty where it cannot be told."""
    try:
        library = ctypes.CDLL(_MANAGEMENT)
    except OSError:
        return ""
    text = ctypes.create_string_buffer(96)
    if library.nvmlInit_v2() != 0:
        return ""
    try:
        found = library.nvmlSystemGetDriverVersion(text, len(text)) == 0
    finally:
        library.nvmlShutdown()
    return text.value.decode(errors="replace") if found else ""


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(index, name.value.decode(errors="replace"), (major.value, minor.value), memory.value)

"""Inference engines behind one protocol, and the table of which opens what.

A backend is one row of :data:`ENGINES`; nothing else needs to know of it. Each engine's package is
imported only when a model is opened with it.
"""

from .base import Backend, Pending
from .engines import (
    DEVICES,
    ENGINES,
    Device,
    Engine,
    Options,
    list_devices,
    load_spec,
    open_backend,
    resolve_model,
)

__all__ = [
    "DEVICES",
    "ENGINES",
    "Backend",
    "Device",
    "Engine",
    "Options",
    "Pending",
    "list_devices",
    "load_spec",
    "open_backend",
    "resolve_model",
]

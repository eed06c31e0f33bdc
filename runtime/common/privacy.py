"""Keep what we depend on from reporting to its makers.

Two of our engines would. OpenVINO, at every import, writes an identifier into the home folder and
starts a child that posts to an analytics service, and NNCF does the same through the same package.
ONNX Runtime (1.29 and later, Linux and macOS) keeps an identifier and a database in the cache folder
and uploads from a thread of its own: names, hashes and shapes of models among it. All of them ask
nobody. Nothing of cellseg is ever sent anywhere, so :mod:`cellseg.runtime` switches both off before
anything else is imported.
"""

from __future__ import annotations

import os
import sys
from typing import Any

#: What ONNX Runtime looks for once, when it is loaded. (Its function ``disable_telemetry_events`` stops
#: only some of the events, and neither the thread nor the files.)
ONNX_RUNTIME = "ORT_DISABLE_TELEMETRY"
#: The package through which OpenVINO and NNCF report. Both do without where it is not installed.
OPENVINO = "openvino_telemetry"


def forbid_reports() -> None:
    """Let no dependency report from this process or its children; call before an engine is imported."""
    os.environ[ONNX_RUNTIME] = "1"
    # What is None here cannot be imported, as if it were not installed:
    # https://docs.python.org/3/reference/import.html#the-module-cache
    modules: dict[str, Any] = sys.modules
    modules[OPENVINO] = None

"""OpenVINO in a process that others share."""

import subprocess
import sys
from pathlib import Path

import pytest

#: Engines that overlap in time and go in the order they came, or in another thread; then a signal.
PROGRAM = """
import faulthandler, gc, signal, sys, threading
from cellseg.runtime.backends import open_backend

def opened():
    backend = open_backend(sys.argv[1], "cpu", engine="openvino")
    backend.prepare(32, 1)
    return [backend]

faulthandler.enable()
first, second = opened(), opened()
def close(engines):
    engines.pop().close()
    gc.collect()
close(first)
if sys.argv[2] == "elsewhere":
    thread = threading.Thread(target=close, args=(second,))
    thread.start()
    thread.join()
else:
    close(second)
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the stack is changed on Linux only")
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_signals_are_handled_after_engines_have_gone(model_path: Path, where: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(model_path), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr

"""OpenVINO in a process that others share."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime.backends import cpu_openvino, open_backend
from cellseg.runtime.backends.cpu_openvino import CORE
from cellseg.runtime.errors import UsageError

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


def test_small_shapes_stay_compiled(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a few sizes come in turns; each shape is compiled once, and computes the same again."""
    compiled = []
    compile_model = CORE.compile_model
    monkeypatch.setattr(CORE, "compile_model", lambda *given: compiled.append(1) or compile_model(*given))
    monkeypatch.setattr(cpu_openvino, "SMALL", 40**2)
    batch = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    with open_backend(model_path, "cpu", engine="openvino") as backend:

        def run(tile: int) -> np.ndarray:
            backend.prepare(tile, 1)
            return backend.submit(np.ascontiguousarray(batch[:, :tile, :tile])).result().copy()

        first = [run(tile) for tile in (32, 40, 36, 64)]
        assert len(compiled) == 4
        again = [run(tile) for tile in (40, 36, 64)]
        assert len(compiled) == 4, "the last large one stays, too: each picture looks at a small one before"
        run(56)
        run(64)
        assert len(compiled) == 6, "of large ones only the last stays"
        run(32)
        assert len(compiled) == 7, "small ones go where there are too many"
        assert all(
            (one == other).all() for one, other in zip(again, (first[1], first[2], first[3]), strict=True)
        )


def test_what_is_announced_is_compiled_beside(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In other threads, each once, and with the same planes; what turns out otherwise costs nothing more."""
    threads = []
    compile_model = CORE.compile_model

    def compiling(*given: object) -> object:
        threads.append(threading.current_thread().name)
        return compile_model(*given)

    monkeypatch.setattr(CORE, "compile_model", compiling)
    batch = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    with open_backend(model_path, "cpu", engine="openvino") as backend:
        backend.prepare(64, 1)
        plain = backend.submit(batch).result().copy()
    threads.clear()
    with open_backend(model_path, "cpu", engine="openvino") as backend:
        backend.anticipate([(32, 1), (64, 1), (64, 1)])
        backend.prepare(32, 1)
        backend.prepare(64, 1)
        assert (backend.submit(batch).result() == plain).all()
        assert len(threads) == 2
        assert all(name.startswith("cellseg-prepare") for name in threads)
        backend.anticipate([(32, 1), (64, 1)])
        backend.prepare(40, 1)
        assert threads[2:] == ["MainThread"], "those are there already, and this one was not announced"
        backend.anticipate([(33, 1)])  # no multiple of the model's: said where it is wanted
        with pytest.raises(UsageError, match="multiple of"):
            backend.prepare(33, 1)
        with backend.prepared(40, 1):
            before = len(threads)
            backend.anticipate([(48, 1)])
        backend.prepare(48, 1)
        assert threads[before:] == ["MainThread"], "a run that is on its way is not disturbed"

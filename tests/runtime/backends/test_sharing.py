"""One engine, several threads; and processes, which cannot share one."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.backends import open_backend
from cellseg.runtime.backends.turns import Turns
from cellseg.runtime.errors import BackendError, UsageError


def picture(height: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = np.full((height, 96, 3), 20, np.uint8)
    for x, y in rng.integers(8, 88, (4, 2)):
        cv2.circle(pixels, (int(x), int(y) % height), 6, (240, 240, 240), -1)
    return pixels


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_threads_share_an_engine(engine: str, bright_model: Path) -> None:
    """A hundred pictures of five sizes, four at a time: each as if it were alone."""
    pytest.importorskip(engine)
    pictures = [picture(48 + 16 * (number % 5), number) for number in range(20)]
    with open_backend(bright_model, "cpu", engine=engine) as backend:
        alone = [segment(one, backend, workers=1).labels for one in pictures]
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda n: segment(pictures[n % 20], backend, workers=1).labels, range(100))
            for number, labels in enumerate(found):
                np.testing.assert_array_equal(labels, alone[number % 20])
    assert len({labels.shape for labels in alone}) == 5


def test_runs_of_one_shape_go_on_side_by_side() -> None:
    turns, together = Turns(), threading.Barrier(3, timeout=20)

    def run() -> None:
        with turns.hold("small", lambda: None):
            together.wait()  # ends only where all three are within

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run) for _ in range(3)]:
            done.result()


def test_another_shape_waits_and_is_not_passed_over() -> None:
    turns, order, inside = Turns(), list[str](), threading.Event()

    def run(shape: str, name: str) -> None:
        with turns.hold(shape, lambda: order.append(f"prepare {shape}")):
            order.append(name)

    def first() -> None:
        with turns.hold("small", lambda: order.append("prepare small")):
            inside.set()
            while len(turns._waiting) < 2:
                time.sleep(1e-3)
            order.append("first")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(20)
    for number, arguments in enumerate((("large", "second"), ("small", "third"))):
        threads.append(threading.Thread(target=run, args=arguments))
        threads[-1].start()
        while len(turns._waiting) < number + 1 and threads[0].is_alive():
            time.sleep(1e-3)
    for thread in threads:
        thread.join(20)
    assert order == ["prepare small", "first", "prepare large", "second", "prepare small", "third"]


def test_what_would_wait_for_ever_is_refused(bright_model: Path) -> None:
    with open_backend(bright_model, "cpu") as backend, backend.prepared(64, 1):
        with backend.prepared(64, 1):
            assert backend.tile == 64
        with pytest.raises(BackendError, match="this thread is segmenting with this engine already"):
            backend.prepared(128, 1).__enter__()
        with pytest.raises(BackendError, match="is in use for another size of batch"):
            backend.prepare(128, 1)


def test_a_size_that_cannot_be_leaves_the_turn_to_others(bright_model: Path) -> None:
    with open_backend(bright_model, "cpu") as backend:
        with pytest.raises(UsageError, match="multiple of 8"):
            backend.prepared(65, 1).__enter__()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: segment(picture(64, 0), backend).labels.shape).result(20) == (64, 96)


def _in_child(how: str) -> str:
    try:
        if how == "compiled again":
            return str(segment(picture(64, 0), _SHARED[1], workers=1).count)
        return str(segment(picture(64, 0), _SHARED[0], workers=1).count)
    except UsageError as error:
        return str(error)


_SHARED: list[object] = []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_child_is_told(bright_model: Path) -> None:
    """It would wait for ever for threads that only its parent has."""
    with open_backend(bright_model, "cpu") as backend:
        segment(picture(64, 0), backend, workers=1)
        _SHARED[:] = [backend, bright_model]
        for how in ("shared", "compiled again"):
            with multiprocessing.get_context("fork").Pool(1) as pool:
                text = pool.apply_async(_in_child, (how,)).get(timeout=60)
            assert "start processes with multiprocessing.get_context('spawn')" in text
            assert "\n" not in text
        segment(picture(64, 0), backend, workers=1)  # the parent goes on

"""Strips reach every writer in order, each in a thread of its own."""

import threading
import weakref

import numpy as np
import pytest

from cellseg.runtime.common.threads import Flow
from cellseg.runtime.errors import OutputError
from cellseg.runtime.geometry.named import NamedRegions
from cellseg.runtime.geometry.regions import Polygons
from cellseg.runtime.instances import Cells, Strip
from cellseg.runtime.instances.full_resolution import FullResolution
from cellseg.runtime.streaming.delivery import Delivery
from cellseg.runtime.streaming.regions import RegionCounter


class Taker:
    def __init__(self, stage: str | None = None) -> None:
        if stage is not None:
            self.stage = stage
        self.rows: list[tuple[int, int]] = []
        self.thread = ""

    def write(self, strip: Strip) -> None:
        self.rows.append((strip.y, len(strip.labels)))
        self.thread = threading.current_thread().name


def strips(count: int) -> list[Strip]:
    return [Strip(4 * i, np.full((4, 6), i, np.int32), Cells.empty()) for i in range(count)]


def deliver(sinks: list[Taker], count: int, back: FullResolution | None = None) -> Flow:
    flow = Flow()
    delivery = Delivery(flow, sinks, back)

    def make() -> None:
        for strip in strips(count):
            delivery.put(strip)
        delivery.close()

    flow.stage("make", make)
    flow.run()
    return flow


def test_all_get_all_in_order_and_in_their_own_thread() -> None:
    sinks = [Taker("labels"), Taker("table"), Taker("table"), Taker()]
    flow = deliver(sinks, 50)
    for sink in sinks:
        assert sink.rows == [(4 * i, 4) for i in range(50)]
    names = ["labels", "table", "table-2", "write"]
    assert [sink.thread for sink in sinks] == [f"cellseg-{name}" for name in names]
    assert [name for name in flow.clocks if name != "make"] == names


def test_strips_are_rescaled_once_for_all() -> None:
    sinks = [Taker("one"), Taker("two")]
    flow = deliver(sinks, 5, FullResolution(20, 6, 40, 12))
    assert sinks[0].rows == sinks[1].rows == [(8 * i, 8) for i in range(5)]
    assert "rescale" in flow.clocks


def test_regions_are_told_in_the_slides_own_pixels() -> None:
    class Roi(Taker):
        def write(self, strip: Strip) -> None:
            self.rows += strip.cells.columns["roi"].tolist()

    flow, sink = Flow(), Roi("one")
    left = Polygons([[np.array([[0, 0], [9, 0], [9, 40], [0, 40]], float)]])
    counter = RegionCounter(NamedRegions(left, 40, 12))
    delivery = Delivery(flow, [sink], FullResolution(20, 6, 40, 12), counter)
    columns = Cells.empty().columns | {name: np.array([1.0, 4.0]) for name in ("centroid_y", "centroid_x")}
    columns |= {
        name: np.zeros(2, values.dtype) for name, values in columns.items() if not name.startswith("centroid")
    }
    ring = np.array([[1, 1], [2, 1], [2, 2], [1, 2]] * 2, np.int32)

    def make() -> None:
        delivery.put(Strip(0, np.zeros((4, 6), np.int32), Cells(columns, ring, np.array([0, 4, 8]))))
        delivery.close()

    flow.stage("make", make)
    flow.run()
    # Their centres lie at 3 and 9 of the slide's twelve columns.
    assert sink.rows == [0, -1]
    assert counter.cells.tolist() == [1]
    assert counter.outside == 1


def test_a_writer_that_waits_does_not_hold_up_another() -> None:
    """The second one gets its strips while the first is still at the one before."""
    reached = threading.Event()

    class Slow(Taker):
        def write(self, strip: Strip) -> None:
            if strip.y == 0:
                assert reached.wait(20)
            super().write(strip)

    class Quick(Taker):
        def write(self, strip: Strip) -> None:
            super().write(strip)
            if strip.y == 4:
                reached.set()

    sinks = [Slow("slow"), Quick("quick")]
    deliver(list(sinks), 6)
    assert sinks[0].rows == sinks[1].rows


def test_an_error_of_one_ends_all() -> None:
    class Broken(Taker):
        def write(self, strip: Strip) -> None:
            if strip.y == 8:
                raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="disk is full"):
        deliver([Taker("one"), Broken("two")], 1000)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cellseg-")]


def test_a_written_strip_is_let_go_before_the_next_one_comes() -> None:
    flow, taken = Flow(), threading.Semaphore(0)
    labels: list[weakref.ref[np.ndarray]] = []
    gone: list[bool] = []

    class Counting(Taker):
        def write(self, strip: Strip) -> None:
            taken.release()

    delivery = Delivery(flow, [Counting("one"), Counting("two")], None)

    def make() -> None:
        strip = strips(1)[0]
        labels.append(weakref.ref(strip.labels))
        delivery.put(strip)
        del strip
        for _ in range(2):
            taken.acquire()
        for _ in range(200):  # they have it in hand for a moment
            if labels[0]() is None:
                break
            threading.Event().wait(0.05)
        gone.append(labels[0]() is None)
        delivery.close()

    flow.stage("make", make)
    flow.run()
    assert gone == [True]

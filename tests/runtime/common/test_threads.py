import threading
import time

import pytest

from cellseg.runtime.common.threads import Channel, Flow


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cellseg-")]


def chain(flow: Flow, count: int, capacity: int, fail_at: int = -1) -> list[int]:
    """Three stages: numbers, their squares, a list."""
    numbers: Channel[int] = flow.channel(capacity)
    squares: Channel[int] = flow.channel(capacity)
    found: list[int] = []

    def make() -> None:
        for number in range(count):
            numbers.put(number)
        numbers.close()

    def square() -> None:
        for number in numbers:
            if number == fail_at:
                raise RuntimeError(f"cannot square {number}")
            squares.put(number * number)
        squares.close()

    flow.stage("make", make)
    flow.stage("square", square)
    flow.stage("collect", lambda: found.extend(squares))
    return found


@pytest.mark.parametrize("capacity", [1, 7])
def test_items_arrive_once_and_in_order(capacity: int) -> None:
    flow = Flow()
    found = chain(flow, 500, capacity)
    flow.run()
    assert found == [n * n for n in range(500)]
    assert not names()


def test_the_first_error_ends_all_and_is_the_one_raised() -> None:
    flow = Flow()
    found = chain(flow, 10**9, 2, fail_at=50)
    with pytest.raises(RuntimeError, match="cannot square 50"):
        flow.run()
    assert len(found) <= 50
    assert not names()


def test_a_slow_stage_holds_up_a_fast_one() -> None:
    flow = Flow()
    items: Channel[int] = flow.channel(2)
    ahead = []
    taken = 0

    def make() -> None:
        for number in range(20):
            items.put(number)
            ahead.append(number - taken)
        items.close()

    def take() -> None:
        nonlocal taken
        for _ in items:
            time.sleep(0.002)
            taken += 1

    flow.stage("make", make)
    flow.stage("take", take)
    flow.run()
    assert max(ahead) <= 3
    assert flow.clocks["make"].wait > flow.clocks["make"].busy
    assert flow.clocks["take"].busy > flow.clocks["take"].wait


def test_an_interrupt_ends_all() -> None:
    flow = Flow()
    chain(flow, 10**9, 2)

    def tick() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.run(tick, interval=0.01)
    assert not names()


def test_a_pool_lends_what_it_was_given() -> None:
    flow = Flow()
    pool: Channel[bytearray] = flow.channel(2)
    buffers = [bytearray(1), bytearray(1)]
    for buffer in buffers:
        pool.put(buffer)
    lent: Channel[bytearray] = flow.channel(2)

    def lend() -> None:
        for _ in range(50):
            lent.put(pool.get())
        lent.close()

    def give_back() -> None:
        for buffer in lent:
            assert any(buffer is known for known in buffers)
            pool.put(buffer)

    flow.stage("lend", lend)
    flow.stage("back", give_back)
    flow.run()


def test_clocks_run_while_a_stage_does() -> None:
    flow = Flow()
    flow.stage("sleep", lambda: time.sleep(0.05))
    assert flow.clocks["sleep"].busy == 0
    seen = []
    flow.run(lambda: seen.append(flow.clocks["sleep"].busy), interval=0.01)
    assert seen == sorted(seen)
    assert flow.clocks["sleep"].busy >= 0.05

import os
import threading
import time
from pathlib import Path

import pytest

from cellseg.runtime.common.threads import Channel, Flow, cores
from cellseg.runtime.errors import UsageError


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


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like / of a machine with 16 cores, none of them taken away."""
    monkeypatch.delenv("CELLSEG_CORES", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return tmp_path


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cores_are_those_of_the_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores(machine) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert cores(machine) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores(machine) == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(machine) == 1


@pytest.mark.parametrize(
    ("own", "above", "wanted"),
    [
        ("max 100000", "max 100000", 16),
        ("250000 100000", "max 100000", 3),
        ("400000 100000", "150000 50000", 3),
        ("1000 100000", "max 100000", 1),
        ("9900000 100000", "max 100000", 16),
        ("nonsense", "200000 100000", 2),
    ],
)
def test_a_container_may_have_less_time(machine: Path, own: str, above: str, wanted: int) -> None:
    put(machine, proc__self__cgroup="0::/pod/own\n")
    put(machine, sys__fs__cgroup__pod__own__cpu_dot_max=own, sys__fs__cgroup__pod__cpu_dot_max=above)
    assert cores(machine) == wanted


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_also_by_the_older_files(machine: Path, folder: str) -> None:
    put(machine, proc__self__cgroup="5:memory:/other\n4:cpu,cpuacct:/job\n0::/\n")
    group = machine / "sys/fs/cgroup" / folder / "job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(machine) == 16
    (group / "cpu.cfs_quota_us").write_text("350000\n")
    assert cores(machine) == 4


def test_a_process_takes_its_share(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSEG_CORES", "5")
    assert cores(machine) == 5
    monkeypatch.setenv("CELLSEG_CORES", "50")
    assert cores(machine) == 16
    for wrong in ("0", "-2", "two", "1.5", "²"):
        monkeypatch.setenv("CELLSEG_CORES", wrong)
        with pytest.raises(UsageError, match=f"CELLSEG_CORES is '{wrong}'; wanted the number"):
            cores(machine)

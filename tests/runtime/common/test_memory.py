"""How much memory a machine or a container has."""

from pathlib import Path

from cellseg.runtime.common.memory import machine_memory


def test_the_machine() -> None:
    found = machine_memory()
    assert found is None or 1 << 28 < found < 1 << 50


def test_a_container_may_have_less(tmp_path: Path) -> None:
    whole = machine_memory(tmp_path)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert machine_memory(tmp_path) == whole
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("104857600\n")
    assert machine_memory(tmp_path) == 100 << 20

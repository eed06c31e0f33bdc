import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from cellseg.runtime.errors import ModelError, OutputError
from cellseg.train import checkpoint


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"w": torch.arange(3)}, "step": 7, "ema": None})
    state = checkpoint.load(path)
    assert state["step"] == 7
    assert state["model"]["w"].tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OutputError, match=r"last\.pt: cannot be written \(No space left.*is kept.*--resume"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"cellseg_checkpoint": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such checkpoint"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 but not really", "cannot be read"),
        ({"state_dict": {}}, "found no cellseg checkpoint"),
        ([1, 2], "found no cellseg checkpoint"),
        ({"cellseg_checkpoint": 99}, "found format 99, wanted a checkpoint of format 1"),
    ],
)
def test_a_file_that_is_not_ours_is_named(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=words) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)

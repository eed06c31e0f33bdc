"""Compiled models from one run to the next: used only for what they were made for, and never in the way."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.backends import Options, kept, open_backend
from cellseg.runtime.backends.cpu_openvino import CORE
from cellseg.runtime.errors import UsageError

ME = {"engine": "one 1.0", "tile": 64, "options": {"threads": 2}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where models are kept."""
    monkeypatch.setenv(kept.FOLDER, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each compilation."""
    found: list[int] = []
    compile_model = CORE.compile_model
    monkeypatch.setattr(CORE, "compile_model", lambda *given: found.append(1) or compile_model(*given))
    return found


def files(place: Path) -> list[Path]:
    return sorted(place.iterdir())


def test_what_is_kept_comes_back_for_the_same_only(place: Path) -> None:
    assert kept.load(ME) is None
    assert kept.save(ME, b"made")
    assert kept.load(dict(reversed(ME.items()))) == b"made"
    for change in ({"engine": "one 1.1"}, {"tile": 72}, {"options": {"threads": 3}}, {"more": 1}):
        assert kept.load(ME | change) is None
    kept.save(ME, b"made again")
    assert kept.load(ME) == b"made again"
    assert len(files(place)) == 1


@pytest.mark.skipif(os.name != "posix", reason="as POSIX says who may write")
def test_it_is_the_users_alone(place: Path) -> None:
    kept.save(ME, b"made")
    assert place.stat().st_mode & 0o777 == 0o700
    assert files(place)[0].stat().st_mode & 0o777 == 0o600
    place.chmod(0o777)
    assert kept.load(ME) is None, "anybody could have put it there"
    assert not kept.save(ME, b"other")


def damage_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def become_another(path: Path) -> None:
    kept.save(ME | {"tile": 72}, b"other")
    (other,) = (each for each in path.parent.iterdir() if each != path)
    other.replace(path)


@pytest.mark.parametrize(
    "spoil",
    [
        damage_a_byte,
        become_another,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.write_bytes(b"x" * 100_000),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_damaged_files_are_as_good_as_none(place: Path, spoil: object) -> None:
    kept.save(ME, b"made")
    spoil(files(place)[0])
    assert kept.load(ME) is None


def test_what_was_not_used_for_longest_goes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2_000)
    for number in range(3):
        if number == 2:  # the first is used again
            assert kept.load({"n": 0}) is not None
        kept.save({"n": number}, bytes(800))
        time.sleep(0.02)  # so that the times of the files differ
        if number == 1:
            left = place / "tmp0.compiled"  # of a process that was killed
            left.write_bytes(bytes(3_000))
            os.utime(left, (1, 1))
    assert [kept.load({"n": number}) is not None for number in range(3)] == [True, False, True]
    assert len(files(place)) == 2


def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        monkeypatch.setenv(kept.FOLDER, str(folder))
        assert not kept.save(ME, b"made")
        assert kept.load(ME) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where Linux keeps such files")
def test_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kept.FOLDER)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kept.folder() == tmp_path / ".cache" / "cellseg"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kept.folder() == tmp_path / ".cache" / "cellseg"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kept.folder() == tmp_path / "cache" / "cellseg"
    monkeypatch.setenv(kept.FOLDER, "off")
    assert kept.folder() is None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_planes_and_description_stay_the_same(precision: str, place: Path, compiled: list[int]) -> None:
    """The default model in each arithmetic: compiled, and as it was kept."""
    batch = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3)).astype(np.uint8)

    def run() -> tuple[str, int, np.ndarray]:
        with open_backend(None, "cpu", engine="openvino", options=Options(precision=precision)) as backend:
            backend.prepare(96, 2)
            return backend.description, backend.in_flight, backend.submit(batch).result().copy()

    try:
        first = run()
    except UsageError as error:
        pytest.skip(str(error))
    assert (len(compiled), len(files(place))) == (1, 1)
    second = run()
    assert len(compiled) == 1, "what was kept was not used"
    assert first[:2] == second[:2]
    assert (first[2] == second[2]).all()


def test_another_model_of_the_same_name_is_compiled(
    model_path: Path, bright_model: Path, tmp_path: Path, place: Path, compiled: list[int]
) -> None:
    model = tmp_path / "m.onnx"
    for number, data in enumerate((model_path.read_bytes(), bright_model.read_bytes()), 1):
        model.write_bytes(data)
        with open_backend(model, "cpu", engine="openvino") as backend:
            backend.prepare(64, 1)
        assert (len(compiled), len(files(place))) == (number, number)


def test_what_the_engine_does_not_take_is_compiled(
    bright_model: Path, place: Path, compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the file is whole."""
    picture = np.zeros((96, 96), np.uint8)
    picture[30:50, 30:50] = 250

    def run() -> int:
        return segment(picture, bright_model, device="cpu", engine="openvino").count

    assert run() == 1
    made = len(compiled)
    save = kept.save
    for path in files(place):
        path.unlink()
    monkeypatch.setattr(kept, "save", lambda identity, data: save(identity, b"no model of OpenVINO's"))
    assert run() == 1
    assert len(compiled) == 2 * made
    assert run() == 1
    assert len(compiled) == 3 * made

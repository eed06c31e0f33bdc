"""Going on after a stop: the planes of finished bands, and results that are byte for byte the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.errors import BackendError, CellsegError, OutputError, UsageError
from cellseg.runtime.streaming import journal as journals
from cellseg.runtime.streaming.journal import Journal
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
from cellseg.runtime.writers.folder import MARK


@pytest.fixture(autouse=True)
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "WORTH", 0.0)
    monkeypatch.setattr(journals, "AFTER", 0.0)


def planes(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (2, 7, 11), np.uint8)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal", {"tile": 32})
    assert first.bands == frozenset()
    first.keep(3, planes(3))
    first.keep(0, planes(0)[:, ::-1])
    again = Journal(tmp_path / "journal", {"tile": 32})
    assert again.bands == {0, 3}
    out = np.zeros_like(planes())
    again.load(3, out)
    assert (out == planes(3)).all()
    again.load(0, out)
    assert (out == planes(0)[:, ::-1]).all()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: bytes(len(data)),  # of the size that it had, with nothing in it
        lambda data: data[:20] + bytes(len(data) - 20),
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: b"CSB0" + data[4:],
    ],
)
def test_bands_that_a_power_failure_has_torn_are_computed_again(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "journal"
    kept = Journal(folder, {})
    kept.keep(1, planes())
    kept.keep(2, planes())
    path = folder / "band-000001.planes"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(OutputError, match=r"000001\.planes: was changed meanwhile; go on with resume=True"):
        kept.load(1, planes())
    assert Journal(folder, {}).bands == {2}
    assert not path.exists()


def test_strangers_among_the_bands_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    Journal(folder, {}).keep(1, planes())
    for name in ("band-000002.part", "band-xyz.planes", "band-.planes", "band--1.planes", "notes.txt"):
        (folder / name).write_bytes(b"CSB1 half")
    (folder / "band-000004.planes").mkdir()
    os.mkfifo(folder / "band-000005.planes")
    assert Journal(folder, {}).bands == {1}


@pytest.mark.parametrize("text", [b"", bytes(300), b"{", b"[]", b"\xff", b"[" * 100_000])
def test_bands_of_an_unknown_run_are_computed_again(tmp_path: Path, text: bytes) -> None:
    """A mark that a power failure has torn is no error, but nobody knows what the bands were."""
    folder = tmp_path / "journal"
    Journal(folder, {"tile": 32}).keep(1, planes())
    (folder / "notes.txt").write_text("mine")
    (folder / "run.json").write_bytes(text)
    assert Journal(folder, {"tile": 48}).bands == frozenset()
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "run.json"]
    with pytest.raises(UsageError, match="was begun with tile 48"):
        Journal(folder, {"tile": 32})


def test_planes_of_another_size_are_refused(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "journal", {})
    kept.keep(1, planes())
    with pytest.raises(OutputError, match="was changed meanwhile"):
        kept.load(1, np.zeros((2, 7, 12), np.uint8))


def test_bands_and_the_way_to_them_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        fsync(handle)
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", note)
    folder = tmp_path / ".slide.partial" / "journal"
    kept = Journal(folder, {})
    assert flushed == [folder / "run.part", folder, folder.parent, tmp_path]
    flushed.clear()
    kept.keep(1, planes())
    assert flushed == [folder / "band-000001.part", folder]


def test_other_runs_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".slide.partial" / "journal"
    Journal(folder, {"tile": 512, "batch": 1})
    with pytest.raises(
        UsageError, match=r"slide\.partial: was begun with tile 512, now it is 1024; go on with"
    ):
        Journal(folder, {"tile": 1024, "batch": 1})
    with pytest.raises(UsageError, match="begun with batch 1, now it is null"):
        Journal(folder, {"tile": 512})


def test_a_band_that_is_computed_faster_than_kept_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "WORTH", 1e9)
    kept = Journal(tmp_path / "journal", {})
    for band in range(3):
        kept.keep(band, planes())
    assert Journal(tmp_path / "journal", {}).bands == {0}  # before it, nobody knew what keeping costs


def test_nothing_is_kept_of_short_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "AFTER", 1e9)
    Journal(tmp_path / "journal", {}).keep(0, planes())
    assert Journal(tmp_path / "journal", {}).bands == frozenset()


# -- through the pipeline ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:200, :90]
    found = np.full((200, 90), 12.0)
    for _ in range(60):
        cy, cx, r = rng.uniform(0, 200), rng.uniform(0, 90), rng.uniform(3, 8)
        found = np.maximum(found, (np.hypot(y - cy, x - cx) < r) * rng.uniform(150, 250))
    return found.astype(np.uint8)


def engine(**fake: Any) -> LocalEngine:
    return LocalEngine(local_spec(2).model_copy(update={"normalization": "percentile"}), 2, **fake)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that say when and how fast."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html")
    }


OPTIONS: dict[str, Any] = {"tile": 24, "batch": 3, "csv": True, "levels": (0, 255)}


@pytest.fixture(scope="module")
def whole(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    segment(image, engine(), output=out, **OPTIONS)
    return contents(out)


@pytest.mark.parametrize("stops", [[0], [5], [14], [4, 3, 2], [15, 0]])
def test_stopped_and_resumed_is_the_same(
    stops: list[int], image: np.ndarray, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "results" / "out"
    for stop in stops:
        fake = engine(fail_at=stop)
        with pytest.raises(BackendError, match="told to fail"):
            segment(image, fake, output=out, resume=True, **OPTIONS)
        assert not out.exists()
        (left,) = out.parent.iterdir()
        assert sorted(path.name for path in left.iterdir()) == [MARK, "journal"]
    fake = engine()
    result = segment(image, fake, output=out, resume=True, **OPTIONS)
    assert contents(out) == whole
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    record = json.loads((out / "run.json").read_text())
    assert record["resumed_pixels"] == result.record.resumed_pixels
    if max(stops) > 10:  # of 17 batches
        assert 0 < record["resumed_pixels"] < image.size
        assert fake.submitted < 8


def test_without_resume_nothing_is_left_and_nothing_is_taken(image: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BackendError):
        segment(image, engine(fail_at=10), output=out, resume=True, **OPTIONS)
    with pytest.raises(BackendError):
        segment(image, engine(fail_at=10), output=out, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_only_the_same_run_goes_on(image: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BackendError):
        segment(image, engine(fail_at=10), output=out, resume=True, **OPTIONS)
    with pytest.raises(UsageError, match="was begun with tile 24, now it is 32"):
        segment(image, engine(), output=out, resume=True, **{**OPTIONS, "tile": 32})
    with pytest.raises(CellsegError, match=r"begun with black and white \[0.0, 255.0\]"):
        segment(image, engine(), output=out, resume=True, **{**OPTIONS, "levels": (0, 250)})
    result = segment(image, engine(), output=out, resume=True, **OPTIONS)
    assert result.record.resumed_pixels > 0


def test_regions_of_interest_belong_to_the_run(image: np.ndarray, tmp_path: Path) -> None:
    def region(right: float) -> list[np.ndarray]:
        return [np.array([(10.0, 15.0), (right, 15.0), (right, 180.0), (10.0, 180.0)])]

    options = {**OPTIONS, "roi": region(70), "probabilities": True}
    segment(image, engine(), output=tmp_path / "whole", **options)
    out = tmp_path / "out"
    with pytest.raises(BackendError):
        segment(image, engine(fail_at=9), output=out, resume=True, **options)
    with pytest.raises(UsageError, match="was begun with regions"):
        segment(image, engine(), output=out, resume=True, **{**options, "roi": region(60)})
    result = segment(image, engine(), output=out, resume=True, **options)
    assert result.record.resumed_pixels > 0
    assert contents(out) == contents(tmp_path / "whole")

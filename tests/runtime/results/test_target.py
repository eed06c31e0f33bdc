"""A folder of results is whole, known to be so, and not committed where it is not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.errors import OutputError
from cellseg.runtime.results import files
from cellseg.runtime.results.record import RunRecord
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
from cellseg.runtime.writers import formats
from cellseg.runtime.writers.contents import difference, listed


def engine() -> LocalEngine:
    return LocalEngine(local_spec(2))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Squares in a grid, so that cells are on every row of chunks."""
    made = np.zeros((600, 80), np.uint8)
    made.reshape(50, 12, 10, 8)[:, 2:9, :, 1:6] = 200
    return made


@pytest.mark.parametrize("labels", ["zarr", "tiff", "png"])
def test_the_record_lists_every_other_file(image: np.ndarray, tmp_path: Path, labels: str) -> None:
    out = tmp_path / "out"
    result = segment(image, engine(), output=out, csv=True, probabilities=True, labels=labels)
    files = listed(out)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {file.path for file in files} | {"run.json"} == there
    assert difference(out, files) is None
    record = RunRecord.from_json((out / "run.json").read_text(), "run.json")
    assert record.files == result.record.files
    assert [(file.path, file.bytes, file.sha256) for file in record.files] == [tuple(file) for file in files]
    assert "run.json" in (out / "report.html").read_text()


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


OPEN = ["cells.parquet", "cells.csv", "cells.geojson.gz"]
WRITTEN = ["labels.ome.zarr/0/c/0/0", "labels.ome.zarr/zarr.json", "planes.ome.zarr/0/c/0/0/0"]


@pytest.mark.parametrize(
    ("name", "labels", "harm"),
    [
        *((name, "zarr", remove) for name in [*WRITTEN, *OPEN]),
        *((name, "zarr", truncate) for name in WRITTEN),
        ("labels.ome.zarr/0/c/0/0", "png", remove),
        ("labels.ome.zarr/0/c/0/0", "tiff", truncate),
    ],
)
def test_what_goes_missing_during_the_run_is_not_committed(
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    labels: str,
    harm: Callable[[Path], None],
) -> None:
    """Somebody tidies up the hidden folder after a file was written, before all are flushed or converted."""
    path = tmp_path / ".out.partial" / name
    owner, function = (files, "seal") if labels == "zarr" else (formats, "check")
    original = getattr(owner, function)

    def late(*arguments: object) -> object:
        harm(path)
        return original(*arguments)

    monkeypatch.setattr(owner, function, late)
    options = {"csv": True, "probabilities": True, "labels": labels}
    with pytest.raises(OutputError, match=r"was removed while|bytes, and .* were written") as caught:
        segment(image, engine(), output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_results_are_the_same_bytes_twice(image: np.ndarray, tmp_path: Path) -> None:
    hashes = []
    for name in "ab":
        segment(image, engine(), output=tmp_path / name, csv=True)
        listing = json.loads((tmp_path / name / "run.json").read_text())["files"]
        hashes.append({file["path"]: file["sha256"] for file in listing if file["path"] != "report.html"})
    assert hashes[0] == hashes[1]

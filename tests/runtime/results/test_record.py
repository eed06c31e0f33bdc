"""The record of a run: typed, read back as it was, and refused where it is not what it should be."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.errors import OutputError
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.results.identity import Identity, Source
from cellseg.runtime.results.record import FORMAT, RunRecord
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture
def picture() -> np.ndarray:
    image = np.zeros((70, 90), np.uint8)
    image[20:40, 20:40] = 250
    return image


@pytest.fixture
def engine() -> LocalEngine:
    return LocalEngine(local_spec(1), 1)


def test_a_record_comes_back_as_it_was(picture: np.ndarray, engine: LocalEngine, tmp_path: Path) -> None:
    ring = np.array([[0, 0], [0, 60], [60, 60]])
    result = segment(picture, engine, output=tmp_path / "out", roi=[ring], pixel_size=0.25, csv=True)
    path = tmp_path / "out" / "run.json"
    record = RunRecord.from_json(path.read_text(encoding="utf-8"), path)
    assert record == result.record == RunRecord.from_json(record.to_json(), "again")
    assert record.counts.cells == result.count == 1
    assert record.options["csv"] is True
    assert record.identity() == result.record.identity()
    assert record.format == FORMAT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no record of a run"),
        ("[1]", "is no record of a run"),
        ('{"format": "one"}', "is no record of a run"),
        ("{}", "written by a release before 0.2"),
        ('{"format": 2}', "has format 2, and this release reads 1 to 1"),
        ('{"format": 0}', "has format 0"),
        ('{"format": 1}', "is damaged: created: Field required"),
    ],
)
def test_what_is_no_record(text: str, message: str) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        RunRecord.from_json(text, "run.json")
    assert "\n" not in str(caught.value)


def test_files_have_a_place_in_the_record(picture: np.ndarray, engine: LocalEngine) -> None:
    plain = segment(picture, engine).record.to_dict()
    assert plain["files"] == []
    plain["files"] = [{"path": "cells.parquet", "bytes": 3, "sha256": "ab"}]
    assert RunRecord.from_json(json.dumps(plain), "x").files[0].bytes == 3


def test_sources_differ_where_images_do(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"123")
    before = Source.of(path)
    assert (before.bytes, before.path) == (3, str(path))
    path.write_bytes(b"1234")
    assert Source.of(str(path)) != before
    assert Source.of("https://host/a.zarr") == Source(path="https://host/a.zarr")
    assert Source.of(tmp_path / "missing") == Source(path=str(tmp_path / "missing"))
    # Arrays by their content: shape, type and values, however they lie in memory.
    assert Source.of(picture) == Source.of(picture.copy()) == Source.of(np.asfortranarray(picture))
    others = [picture.reshape(90, 70), picture.view(np.int8), picture + 1, picture[:, ::-1]]
    assert len({Source.of(each).sha256 for each in [picture, *others]}) == 5
    assert Source.of(np.float32(picture)[0]).sha256


def test_a_folder_of_chunks_is_seen_whole(tmp_path: Path) -> None:
    chunk = tmp_path / "a.zarr" / "0" / "c" / "0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"1234")
    before = Source.of(tmp_path / "a.zarr")
    chunk.write_bytes(b"1235")
    after = Source.of(tmp_path / "a.zarr")
    assert before.bytes == after.bytes
    assert before != after
    slide = tmp_path / "s.mrxs"
    slide.write_bytes(b"1")
    before = Source.of(slide)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "Data0001.dat").write_bytes(b"12")
    assert Source.of(slide).bytes == before.bytes + 2


def test_damaged_tiles_are_not_taken_for_whole_ones(engine: LocalEngine) -> None:
    options = SegmentOptions()
    with_holes = dataclasses.replace(Identity.of("a.tif", engine, options), damaged=True)
    for now, difference in (
        (options, "damaged tiles were read as black, now skip_bad_tiles is off"),
        (SegmentOptions(skip_bad_tiles=True), None),
    ):
        assert with_holes.difference(Identity.of("a.tif", engine, now), now) == difference


def test_bands_of_another_array_are_not_taken_over(tmp_path: Path) -> None:
    first, second = (
        segment(
            np.full((40, 40), value, np.uint8), LocalEngine(local_spec(1), 1), output=tmp_path / str(value)
        )
        for value in (3, 4)
    )
    assert first.record.image.source.sha256 != second.record.image.source.sha256


def test_another_precision_is_another_result(engine: LocalEngine) -> None:
    options = SegmentOptions()
    made = Identity.of("a.tif", engine, options)
    half = dataclasses.replace(made, precision="bf16")
    assert half.difference(made, options) == "the engine's precision was bf16, now fp32"
    wide = dataclasses.replace(made, halo=64)
    assert wide.difference(made, options) == f"the model's halo was 64, now {engine.spec.halo}"
    other = dataclasses.replace(made, weights="0" * 64)
    assert other.difference(made, options).startswith("model was local (000000000000), now local (")


def test_indexed_as_the_file() -> None:
    record = segment(np.zeros((40, 50), np.uint8), LocalEngine(local_spec(1), 1)).record
    plain = json.loads(record.to_json())
    assert {name: record[name] for name in plain} == plain
    assert record["image"]["width"] == record.image.width == 50
    with pytest.raises(KeyError):
        record["nothing"]

"""Results in a store: the same files as on the disk, the record last, and never half of them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime import Result, segment
from cellseg.runtime.common.addresses import Address
from cellseg.runtime.errors import ExistsError, OutputError, UsageError
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec
from cellseg.runtime.writers.folder import MARK

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.fixture(scope="module")
def image():
    made = np.zeros((600, 80), np.uint8)
    made.reshape(50, 12, 10, 8)[:, 2:9, :, 1:6] = 200
    return made


def engine():
    return LocalEngine(local_spec(2))


def test_the_same_files(image, store, tmp_path, scratch):
    local = segment(image, engine(), output=tmp_path / "a", csv=True)
    stored = segment(image, engine(), output=f"{store}/a", csv=True)
    there = Address(store) / "a"
    assert set(there.files()) == {file.path for file in stored.record.files} | {"run.json"}
    same = ("cells.parquet", "cells.csv", "labels.ome.zarr/zarr.json", "labels.ome.zarr/0/c/0/0")
    for name in same:
        assert (there / name).read() == (tmp_path / "a" / name).read_bytes(), name
    assert stored.address == str(there)
    assert stored.count == local.count == 50
    assert np.array_equal(stored.labels, local.labels)
    del stored
    assert not list(scratch.iterdir())


def test_read_back(image, store, tmp_path, scratch):
    local = segment(image, engine(), output=tmp_path / "a")
    made = segment(image, engine(), output=f"{store}/a")
    sent = pickle.loads(pickle.dumps(made))  # as from a worker: without the copy
    opened = Result.open(f"{store}/a")
    for result in (sent, opened):
        assert result.folder is None
        assert result.record == made.record
        assert np.array_equal(result.labels, local.labels)
        assert list(result.table["area"]) == list(local.table["area"])
        assert len(result.cells) == local.count
    del made, sent, opened, result
    assert not list(scratch.iterdir())
    with pytest.raises(OutputError, match="holds no results"):
        Result.open(f"{store}/b")


def test_what_is_there_stays_unless_it_shall_be_replaced(image, store):
    there = Address(store) / "a"
    segment(image, engine(), output=str(there), csv=True)
    before = there.files()
    with pytest.raises(ExistsError, match="/a: exists; replace it with overwrite=True"):
        segment(image, engine(), output=str(there))
    assert there.files() == before
    (there / "mine.txt").write(b"mine")
    segment(image, engine(), output=str(there), overwrite=True)
    assert "cells.csv" not in there.files()
    assert (there / "mine.txt").read() == b"mine"
    assert MARK not in there.files()
    other = Address(store) / "other"
    (other / "mine.txt").write(b"mine")
    with pytest.raises(OutputError, match="holds something else than results"):
        segment(image, engine(), output=str(other), overwrite=True)
    assert set(other.files()) == {"mine.txt"}


def test_resume(image, store, tmp_path):
    np.save(tmp_path / "x.npy", image)
    there = Address(store) / "a"
    first = segment(image, engine(), output=str(there), resume=True)
    again = segment(image, engine(), output=str(there), resume=True)
    assert again.record == first.record  # its seconds, too: nothing was computed
    with pytest.raises(UsageError, match=r"holds other results: the image has changed"):
        segment(image[:590], engine(), output=str(there), resume=True)
    there.remove(["cells.parquet"])
    with pytest.raises(OutputError, match=r"its results are not whole: cells\.parquet is missing"):
        segment(image, engine(), output=str(there), resume=True)
    (there / "cells.parquet").write(b"1")
    with pytest.raises(OutputError, match=r"not whole: cells\.parquet has 1 bytes"):
        segment(image, engine(), output=str(there), resume=True)


class CutError(Exception):
    pass


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_cut_short_while_it_is_sent(image, store, monkeypatch, earlier, killed):
    there = Address(store) / "a"
    if earlier:
        segment(image, engine(), output=str(there), csv=True)
    send, remove = Address.send, Address.remove

    def half(self, root, names):
        send(self, root, names[: len(names) // 2])
        if killed:  # nothing is tidied up
            monkeypatch.setattr(Address, "remove", lambda self, names: None)
        raise OutputError("the network is gone")

    monkeypatch.setattr(Address, "send", half)
    with pytest.raises(OutputError, match="the network is gone"):
        segment(image, engine(), output=str(there), overwrite=True)
    monkeypatch.setattr(Address, "send", send)
    monkeypatch.setattr(Address, "remove", remove)
    assert "run.json" not in there.files()
    assert killed == bool(there.files())
    with pytest.raises(OutputError, match="holds no results"):
        Result.open(str(there))
    result = segment(image, engine(), output=str(there), resume=True)
    assert set(there.files()) == {file.path for file in result.record.files} | {"run.json"}


def test_a_run_that_fails_leaves_earlier_results(image, store, scratch):
    there = Address(store) / "a"
    segment(image, engine(), output=str(there))
    before = there.files()

    def stop(progress):
        raise CutError

    for place in (there, Address(store) / "new"):
        with pytest.raises(CutError):
            segment(image, engine(), output=str(place), overwrite=True, progress=stop)
    assert there.files() == before
    assert (Address(store) / "new").files() == {}
    assert not list(scratch.iterdir())


def test_a_changed_picture_is_noticed(store, tmp_path):
    import cv2

    for value in (100, 200):
        cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64 + value), value, np.uint8))
        (Address(store) / "a.png").write((tmp_path / "a.png").read_bytes())
        if value == 100:
            result = segment(f"{store}/a.png", engine(), output=f"{store}/a", resume=True)
    assert result.record.image.path == f"{store}/a.png"
    assert json.loads((Address(store) / "a" / "run.json").read())["image"]["source"]["bytes"] > 0
    with pytest.raises(UsageError, match="the image has changed"):
        segment(f"{store}/a.png", engine(), output=f"{store}/a", resume=True)


def test_no_bucket_is_said_before_anything_is_computed(image, s3_server):
    with pytest.raises(OutputError, match=r"^s3://no-such-bucket-here/a: there is no such bucket$"):
        segment(image, engine(), output="s3://no-such-bucket-here/a", progress=lambda _: pytest.fail("begun"))


def test_a_path_with_one_slash_is_a_path(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segment(image, engine(), output=Path("s3:/a"))
    assert (tmp_path / "s3:" / "a" / "run.json").is_file()

"""Images and results in a bucket, on one process and on workers: the files of a run on the disk."""

import csv

import pytest

from cellseg.runtime.batch.inputs import expand
from cellseg.runtime.batch.summary import PAGE, TABLE, write_summary
from cellseg.runtime.cluster.many import segment_many
from cellseg.runtime.common.addresses import Address
from cellseg.runtime.errors import ExistsError, ImageError, OutputError, UsageError

ARE_THE_SAME = ("cells.parquet", "labels.ome.zarr/zarr.json", "labels.ome.zarr/0/c/0/0")


@pytest.fixture
def slides(bucket, images):
    """Put the pictures into a folder of the bucket; return its address."""
    folder = Address(bucket) / "slides"
    folder.send(images, sorted(path.name for path in images.iterdir()))
    return str(folder)


def test_a_folder_in_a_store(store, tmp_path):
    folder = Address(store) / "in"
    for name in ("b.tif", "a.svs", "notes.txt", ".hidden.tif", "c.ome.zarr/zarr.json", "deep/d.tif"):
        (folder / name).write(b"1")
    (folder / "deep/run.json").write(b"{}")
    assert [item.image for item in expand([str(folder)])] == [
        f"{folder}/{name}" for name in ("a.svs", "b.tif", "c.ome.zarr")
    ]
    assert [item.image for item in expand([f"{folder}/*.tif"])] == [f"{folder}/b.tif"]
    assert [item.image for item in expand([f"{folder}/a.svs", f"{folder}/a.svs"])] == [f"{folder}/a.svs"]
    for wrong, said in (
        (f"{folder}/none", "there is nothing of this name"),
        (f"{folder}/**/*.png", "this pattern matches no image"),
        (f"{folder}/deep/*.tif", "only files of results"),
        (f"{folder}/deep", "holds results"),
        (f"{folder}/list.csv", "a table is read from the disk"),
    ):
        with pytest.raises(UsageError, match=said):
            expand([wrong])


def check(output, alone, images, tmp_path):
    """Compare what lies in a store with the results of one process on the disk."""
    for name, wanted in alone.items():
        local = tmp_path / "back" / name
        (Address(output) / name).fetch_folder(local)
        found = images(local)
        assert {key: value for key, value in found.items() if not key.endswith(".geojson.gz")} == {
            key: value for key, value in wanted.items() if not key.endswith(".geojson.gz")
        }
        assert set(found) == set(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [None, "local:2"])
def test_in_a_bucket_as_on_the_disk(slides, bucket, bright_model, alone, hashes, tmp_path, cluster):
    output = f"{bucket}/results"
    outcomes = list(segment_many([slides], bright_model, output=output, cluster=cluster))
    assert [outcome.error for outcome in outcomes] == [None] * 5
    check(output, alone, hashes, tmp_path)
    written = write_summary(outcomes, Address(output))
    assert [str(path) for path in written] == [f"{output}/{TABLE}", f"{output}/{PAGE}"]
    rows = list(csv.DictReader((Address(output) / TABLE).read().decode().splitlines()))
    assert [row["folder"] for row in rows] == sorted(alone)
    assert all(float(row["median_area_px"]) > 20 for row in rows)
    # What is there is refused, skipped, or done again.
    (refused, *_) = segment_many([f"{slides}/image0.tif"], bright_model, output=output, cluster=cluster)
    assert isinstance(refused.error, ExistsError)
    (Address(output) / "image1").remove(["run.json"])
    (Address(output) / "image1" / ".cellseg-unfinished").write(b"")
    again = list(segment_many([slides], bright_model, output=output, cluster=cluster, resume=True))
    assert [outcome.error for outcome in again] == [None] * 5
    assert sorted(o.job.folder.name for o in again if not o.earlier) == ["image1"]
    assert {o.median_area for o in again} == {o.median_area for o in outcomes}
    check(output, alone, hashes, tmp_path / "again")


@pytest.mark.slow
def test_one_that_is_missing_does_not_stop_the_others(slides, bucket, bright_model):
    names = [f"{slides}/none.tif", f"{slides}/image0.tif"]
    outcomes = list(segment_many(names, bright_model, output=f"{bucket}/out", cluster="local:1"))
    errors = {outcome.job.folder.name: outcome.error for outcome in outcomes}
    assert errors["image0"] is None
    assert isinstance(errors["none"], ImageError)
    assert str(errors["none"]) == f"{slides}/none.tif: there is no such file"
    with pytest.raises(OutputError, match="there is no such bucket"):
        list(segment_many(names, bright_model, output="s3://no-such-bucket-here/a", cluster="local:1"))

"""Files at addresses, in stores of several kinds: what is written is read, and what fails is one line."""

import errno
import importlib
import shutil
import sys

import pytest

from cellseg.runtime.common.addresses import Address, explain, place_of
from cellseg.runtime.common.pulse import beats
from cellseg.runtime.errors import CellsegError, ImageError, OutputError


def test_names():
    slide = Address("https://host/a/slide.SVS?token=x.y")
    assert (slide.name, slide.suffix, slide.scheme) == ("slide.SVS", ".svs", "https")
    assert Address("simplecache::s3://lab/a.tif").scheme == "s3"
    assert str(Address("s3://lab/a//") / "b") == "s3://lab/a/b"
    assert place_of("s3://lab/a") == Address("s3://lab/a")
    assert place_of("a/b").name == "b"


def test_what_is_sent_is_there(store, tmp_path):
    local = tmp_path / "local"
    (local / "labels" / "0").mkdir(parents=True)
    files = {"a.txt": b"one", "labels/0/c": b"22" * 500, "empty": b""}
    for name, data in files.items():
        (local / name).write_bytes(data)
    folder = Address(store) / "results"
    assert folder.files() == {}
    assert folder.items() == []
    before = beats()
    folder.send(local, list(files))
    assert beats() > before
    assert folder.files() == {name: len(data) for name, data in files.items()}
    assert folder.items() == [("a.txt", False), ("empty", False), ("labels", True)]
    assert [Address(text).name for text in Address(f"{folder}/**/c").matches()] == ["c"]
    assert (folder / "a.txt").read() == b"one"
    (folder / "a.txt").write(b"other")
    assert (folder / "a.txt").state()[0] == 5
    (folder / "labels/0/c").fetch(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == files["labels/0/c"]
    folder.fetch_folder(tmp_path / "all")
    assert (tmp_path / "all/labels/0/c").read_bytes() == files["labels/0/c"]
    folder.remove(["a.txt", "labels/0/c", "never there"])
    assert set(folder.files()) == {"empty"}
    assert not (folder / "a.txt").is_file()


def test_what_did_not_arrive_is_noticed(store, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(Address, "files", lambda self: {"a": 3})
    with pytest.raises(OutputError, match=r"/a: has 3 bytes of the 5 that were sent; run it again"):
        Address(store).send(tmp_path, ["a"])


def test_what_is_not_there(store, tmp_path):
    with pytest.raises(ImageError, match=r"/none\.tif: there is no such file") as caught:
        (Address(store) / "none.tif").fetch(tmp_path / "none.tif")
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_the_disk(store, tmp_path, monkeypatch):
    (Address(store) / "a").write(b"12345")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ImageError, match="name a larger place in TMPDIR"):
        (Address(store) / "a").fetch(tmp_path / "a")


def test_a_bucket_that_is_not_there(s3_server):
    folder = Address("s3://no-bucket-of-this-name/results")
    for use in (folder.items, folder.files, (folder / "a").read, lambda: (folder / "a").write(b"1")):
        with pytest.raises(CellsegError, match="there is no such bucket"):
            use()


def test_no_credentials(s3_server, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OutputError, match=r"no credentials were found .*set them as for other tools"):
        Address("s3://lab").files()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("module", "address", "advice"),
    [
        ("s3fs", "s3://lab/a", r"s3:// needs another package .*: pip install 'cellseg\[s3\]'"),
        ("fsspec", "https://host/a", r"pip install 'cellseg\[remote\]'"),
    ],
)
def test_a_package_that_is_missing(monkeypatch, module, address, advice):
    pytest.importorskip("fsspec")
    known = importlib.import_module("fsspec.registry")  # fsspec.registry itself is a table
    monkeypatch.delitem(known._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OutputError, match=advice):
        Address(address).files()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Protocol not known: odd"), "odd:// is no address that can be read or written"),
        (PermissionError("Forbidden"), "access is refused (Forbidden); check credentials and their rights"),
        (TimeoutError(), "cannot be reached: TimeoutError; check address and connection"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device in"),
    ],
)
def test_errors_are_one_line(error, said):
    assert explain("odd://a", error).startswith(said)

import doctest
import os
from pathlib import Path

from cellseg.runtime.common import names


def test_examples() -> None:
    assert doctest.testmod(names).failed == 0


def test_names_become_text() -> None:
    assert names.readable("a\ud800b") == "a?b"  # no byte stands behind this one
    assert names.readable("plain") == "plain"


def test_a_file_is_found_by_what_its_name_reads_like(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / os.fsdecode(b"b\xe4nder")
    folder.mkdir()
    odd = folder / os.fsdecode(b"10\xb5m.tif")
    odd.touch()
    assert names.original(names.readable(str(odd))) == odd
    monkeypatch.chdir(tmp_path)
    assert names.original("bänder/10µm.tif") == Path(os.fsdecode(b"b\xe4nder/10\xb5m.tif"))
    assert names.original("bänder") == Path(os.fsdecode(b"b\xe4nder"))
    assert names.original("bänder/11µm.tif") is None
    assert names.original(str(odd / "inside.tif")) is None
    (folder / "10µm.tif").touch()  # the name itself comes first
    assert names.original(names.readable(str(odd))) == folder / "10µm.tif"

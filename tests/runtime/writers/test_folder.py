"""The folder of results: complete or not there."""

import errno
import json
import math
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.errors import OutputError
from cellseg.runtime.writers import OutputFolder, result_name, write_record
from cellseg.runtime.writers.base import writing


def finish(folder, text="one"):
    (folder.path / "cells.txt").write_text(text)
    write_record(folder.path / "run.json", {"cells": 1})
    folder.commit()


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_appears_complete(tmp_path):
    final = tmp_path / "out" / "slide"
    with OutputFolder(final) as folder:
        assert not final.exists()
        finish(folder)
    assert names(final) == ["cells.txt", "run.json"]
    assert names(tmp_path / "out") == ["slide"]


def test_nothing_stays_after_an_error(tmp_path):
    def fail():
        with OutputFolder(tmp_path / "slide") as folder:
            (folder.path / "sub").mkdir()
            (folder.path / "sub" / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == []


def test_existing_results_stay_unless_told(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    with pytest.raises(OutputError, match="slide: exists; replace it with --overwrite or choose"):
        OutputFolder(tmp_path / "slide")
    with pytest.raises(ZeroDivisionError), OutputFolder(tmp_path / "slide", overwrite=True):
        raise ZeroDivisionError
    assert (tmp_path / "slide" / "cells.txt").read_text() == "one"
    with OutputFolder(tmp_path / "slide", overwrite=True) as folder:
        assert (tmp_path / "slide" / "cells.txt").read_text() == "one"
        finish(folder, "two")
    assert (tmp_path / "slide" / "cells.txt").read_text() == "two"
    assert names(tmp_path) == ["slide"]


def test_never_deletes_what_is_not_ours(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "thesis": "holds something else than results",
        "file": "exists and is not a folder",
        "link": "exists and is not a folder",
    }.items():
        with pytest.raises(OutputError, match=message):
            OutputFolder(tmp_path / name, overwrite=True)
    with OutputFolder(tmp_path / "empty", overwrite=True) as folder:
        finish(folder)
    assert names(tmp_path / "thesis") == ["chapter.tex"]


def test_a_killed_run_does_not_disturb_the_next(tmp_path):
    left = tmp_path / ".slide.partial"
    (left / "labels").mkdir(parents=True)
    (left / "labels" / "0").write_text("x")
    (left / "out").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").mkdir()
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    assert names(tmp_path) == ["precious", "slide"]
    assert names(tmp_path / "slide") == ["cells.txt", "run.json"]


def test_two_runs_do_not_write_one_folder(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        with pytest.raises(OutputError, match="another run is writing it"):
            OutputFolder(tmp_path / "slide")
        finish(folder)
    assert names(tmp_path) == ["slide"]


def _start_and_hang(path, ready):
    OutputFolder(Path(path))
    ready.set()
    import time

    time.sleep(60)


def test_the_lock_goes_with_a_killed_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_start_and_hang, args=(str(tmp_path / "slide"), ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(OutputError, match="another run"):
        OutputFolder(tmp_path / "slide")
    process.kill()
    process.join()
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)


def test_a_folder_that_comes_up_meanwhile_is_kept(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        (tmp_path / "slide").mkdir()
        (tmp_path / "slide" / "mine").write_text("x")
        with pytest.raises(OutputError, match="exists"):
            finish(folder)
    assert names(tmp_path / "slide") == ["mine"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written: "):
        OutputFolder(tmp_path / "file" / "slide")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "input/output error"),
    ],
)
def test_advice(code, message):
    with pytest.raises(OutputError, match=rf"^a/b: cannot be written: .*{message}"), writing(Path("a/b")):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/slide.svs", "slide"),
        ("slide.ome.tiff", "slide"),
        ("slide.ome.zarr", "slide"),
        ("my.slide.v2.tif", "my.slide.v2"),
        ("archive.2024-01-05 10.30", "archive.2024-01-05 10"),
        ("...tif", "tif"),
        ("..", "image"),
        (".hidden.tif", "hidden"),
        ("noending", "noending"),
        ("x/..", "image"),
        ('a:b*?"<>|c.png', "a_b______c"),
    ],
)
def test_result_name(path, name):
    assert result_name(path) == name


@given(st.text(max_size=40))
def test_result_name_is_one_plain_name(text):
    name = result_name(text)
    assert name not in ("", ".", "..")
    assert Path(name).name == name
    assert not re.search(r'[\x00-\x1f/\\:*?"<>|]', name)


def test_record(tmp_path):
    record = {
        "cells": np.int64(3),
        "mean": np.float32(0.5),
        "bad": math.nan,
        "huge": math.inf,
        "list": np.arange(3),
        "path": tmp_path,
        "nested": {"µ": (1, 2)},
        "none": None,
        "yes": True,
    }
    write_record(tmp_path / "run.json", record)
    assert names(tmp_path) == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == {
        "cells": 3,
        "mean": 0.5,
        "bad": None,
        "huge": None,
        "list": [0, 1, 2],
        "path": str(tmp_path),
        "nested": {"µ": [1, 2]},
        "none": None,
        "yes": True,
    }

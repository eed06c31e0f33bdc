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

from cellseg.runtime.common.files import writing
from cellseg.runtime.common.names import result_name
from cellseg.runtime.errors import OutputError
from cellseg.runtime.writers import OutputFolder, write_record
from cellseg.runtime.writers import folder as folder_module
from cellseg.runtime.writers.contents import File, difference, listed, seal
from cellseg.runtime.writers.folder import MARK, NAMES, recover
from cellseg.runtime.writers.outputs import titles


def finish(folder, text="one", **more):
    """Write a file, and others by name; flush them, write the record, commit."""
    written = {}
    for name, content in {"cells.txt": text, **more}.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written[path] = path.write_bytes(content.encode())
    files = seal(folder.path, written)
    write_record(folder.path / "run.json", {"files": [file._asdict() for file in files]})
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
            (folder.path / "labels.ome.zarr").mkdir()
            (folder.path / "labels.ome.zarr" / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == []


def test_existing_results_stay_unless_told(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    with pytest.raises(OutputError, match="slide: exists; replace it with overwrite=True or choose"):
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
    (left / "labels.ome.zarr").mkdir(parents=True)
    (left / "labels.ome.zarr" / "0").write_text("x")
    (left / "labels.ome.zarr" / "1").symlink_to(tmp_path / "precious")
    (left / "cells.csv").symlink_to(tmp_path / "precious")
    (left / MARK).touch()
    (tmp_path / "precious").mkdir()
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    assert names(tmp_path) == ["precious", "slide"]
    assert names(tmp_path / "slide") == ["cells.txt", "run.json"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_folder_in_the_way_is_kept(tmp_path, resume):
    left = tmp_path / ".slide.partial"
    (left / "journal").mkdir(parents=True)
    (left / "journal" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"slide\.partial: .* was not made by cellseg; move it away"):
        OutputFolder(tmp_path / "slide", resume=resume)
    recover(tmp_path / "slide", discard=True)
    assert (left / "journal" / "diary.txt").read_text() == "mine"


def test_a_foreign_file_in_an_unfinished_folder_is_kept(tmp_path):
    def fail():
        with OutputFolder(tmp_path / "slide") as folder:
            (folder.path / "mine.txt").write_text("mine")
            (folder.path / "cells.csv").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path / ".slide.partial") == [MARK, "mine.txt"]
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    assert names(tmp_path) == ["slide"]
    assert names(tmp_path / "slide") == ["cells.txt", "mine.txt", "run.json"]


def test_overwriting_keeps_what_the_record_does_not_list(tmp_path):
    slide = tmp_path / "slide"
    with OutputFolder(slide) as folder:
        finish(folder, "one", **{"labels.ome.zarr/0/c": "chunk", "cells.csv": "1"})
    (slide / "mine.txt").write_text("mine")
    (slide / "labels.ome.zarr" / "notes.txt").write_text("mine")
    (slide / "report.html").write_text("mine")
    (slide / "empty").mkdir()
    with OutputFolder(slide, overwrite=True) as folder:
        finish(folder, "two", **{"report.html": "two"})
    assert (slide / "cells.txt").read_text() == "two"
    assert (slide / "report.html").read_text() == "two"
    assert (slide / "mine.txt").read_text() == (slide / "labels.ome.zarr" / "notes.txt").read_text() == "mine"
    assert names(slide / "labels.ome.zarr") == ["notes.txt"]
    assert names(slide) == ["cells.txt", "labels.ome.zarr", "mine.txt", "report.html", "run.json"]
    # What has no place in the new folder is not lost either.
    assert names(tmp_path) == ["slide", "slide.kept"]
    assert names(tmp_path / "slide.kept") == ["report.html"]


@pytest.mark.parametrize(
    "record",
    [
        "[]", "", "{", '{"files": []}', '{"files": [{"path": "a"}]}', '{"cells": 1}',
        '{"files": [{"path": "a", "bytes": Infinity, "sha256": ""}]}',
        '{"files": [{"path": "\\ud800", "bytes": 1, "sha256": ""}]}',
        '{"files": [{"path": "../precious", "bytes": 1, "sha256": ""}]}',
        '{"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": ""}]}',
        '{"files": [{"path": "a/../../precious", "bytes": 1, "sha256": ""}]}',
    ],
)  # fmt: skip
def test_a_record_that_does_not_say_what_is_ours(tmp_path, record):
    (tmp_path / "slide").mkdir()
    (tmp_path / "slide" / "mine.txt").write_text("mine")
    (tmp_path / "slide" / "run.json").write_text(record)
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(
        OutputError, match=r"run\.json does not say which files are of these results"
    ) as caught:
        OutputFolder(tmp_path / "slide", overwrite=True)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["precious", "slide"]


def test_a_link_in_earlier_results_is_not_followed(tmp_path):
    slide = tmp_path / "slide"
    with OutputFolder(slide) as folder:
        finish(folder, "one", **{"labels.ome.zarr/c": "chunk"})
    (slide / "labels.ome.zarr").rename(tmp_path / "precious")
    (slide / "labels.ome.zarr").symlink_to(tmp_path / "precious")
    with OutputFolder(slide, overwrite=True) as folder:
        finish(folder, "two")
    assert (tmp_path / "precious" / "c").read_text() == "chunk"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "was removed while the results were written"),
        (lambda path: path.write_bytes(b""), "has 0 bytes, and 5 were written"),
        (lambda path: (path.unlink(), path.mkdir()), "was removed|bytes, and 5 were written"),
    ],
)
def test_what_was_harmed_meanwhile_is_not_committed(tmp_path, harm, message):
    def run():
        with OutputFolder(tmp_path / "slide") as folder:
            path = folder.path / "cells.csv"
            written = {path: path.write_bytes(b"a,b,c")}
            harm(path)
            seal(folder.path, written)

    with pytest.raises(OutputError, match=message):
        run()
    assert names(tmp_path) == []


def test_what_goes_after_it_was_listed_is_missed_too(tmp_path):
    def run():
        with OutputFolder(tmp_path / "slide") as folder:
            path = folder.path / "cells.csv"
            files = seal(folder.path, {path: path.write_bytes(b"a,b,c")})
            write_record(folder.path / "run.json", {"files": [file._asdict() for file in files]})
            path.unlink()
            folder.commit()

    with pytest.raises(OutputError, match=r"cells\.csv was removed meanwhile; run it again"):
        run()
    assert names(tmp_path) == []


def state(path):
    """What a flush can be compared with: any later change shows."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("again", [False, True])
def test_all_is_flushed_before_the_name_and_the_name_after(tmp_path, monkeypatch, again):
    """What a failure of power leaves of a file that was not flushed is nothing."""
    flushed, steps = {}, []
    take_place, fsync = folder_module._take_place, os.fsync

    def note(handle):
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        flushed[path] = state(path)
        steps.append(path)

    def check(path, final):
        inside = [path, *path.rglob("*")]
        assert not (path / MARK).exists()
        flushed[path] = state(path)  # but for the mark, that is
        assert path in steps[steps.index(path / "cells.txt") :]
        assert {item: flushed.get(item) for item in inside} == {item: state(item) for item in inside}
        assert len(inside) == 7
        steps.append("renamed")
        return take_place(path, final)

    final = tmp_path / "deep" / "er" / "slide"
    if again:
        with OutputFolder(final) as folder:
            finish(folder, "one")
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(folder_module, "_take_place", check)
    with OutputFolder(final, overwrite=again) as folder:
        finish(folder, "two", **{"labels.ome.zarr/0/c": "chunk", "labels.ome.zarr/zarr.json": "{}"})
    after = steps[steps.index("renamed") + 1 :]
    above = [final.parent] if again else [tmp_path, tmp_path / "deep", final.parent]
    assert sorted(after) == [*above, final]
    assert names(final.parent) == ["slide"]


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("step", range(16))
def test_an_overwrite_that_is_killed_loses_no_results(tmp_path, monkeypatch, swaps, step):
    """Killed before the nth change to the disk: the earlier results are there, or the new ones, whole."""
    if not swaps:
        monkeypatch.setattr(folder_module, "exchange", lambda one, other: False)
    slide = tmp_path / "slide"
    with OutputFolder(slide) as folder:
        finish(folder, "one", **{"cells.csv": "one", "cells.parquet": "one"})
    (slide / "mine.txt").write_text("mine")

    class Killed(BaseException):
        pass

    left = step

    def mortal(function):
        def run(*arguments, **options):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return function(*arguments, **options)

        return run

    folder = OutputFolder(slide, overwrite=True)
    written = {
        folder.path / name: (folder.path / name).write_bytes(b"two")
        for name in ("cells.parquet", "cells.csv")
    }
    files = seal(folder.path, written)
    write_record(folder.path / "run.json", {"files": [file._asdict() for file in files]})
    with monkeypatch.context() as patched:
        for name in ("rename", "unlink", "rmdir"):
            patched.setattr(Path, name, mortal(getattr(Path, name)))
        if swaps:
            patched.setattr(folder_module, "exchange", mortal(folder_module.exchange))
        try:
            folder.commit()
        except Killed:
            folder._release()
    if swaps:
        assert (slide / "cells.parquet").read_text() in ("one", "two")
    recover(slide, discard=True)
    text = (slide / "cells.parquet").read_text()
    assert text in ("one", "two")
    assert (slide / "cells.csv").read_text() == text
    assert difference(slide, listed(slide)) is None
    assert (slide / "mine.txt").read_text() == "mine"
    assert names(tmp_path) == ["slide"]


def test_results_that_had_all_but_their_name_get_it(tmp_path, monkeypatch):
    def dies(path, final):
        raise ZeroDivisionError

    monkeypatch.setattr(folder_module, "_take_place", dies)
    folder = OutputFolder(tmp_path / "slide")
    with pytest.raises(ZeroDivisionError):
        finish(folder)
    folder._release()
    recover(tmp_path / "slide")
    assert names(tmp_path) == ["slide"]
    assert difference(tmp_path / "slide", listed(tmp_path / "slide")) is None


def test_a_mark_that_came_back_goes_again(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        finish(folder)
    (tmp_path / "slide" / MARK).touch()
    recover(tmp_path / "slide")
    assert names(tmp_path / "slide") == ["cells.txt", "run.json"]


def test_recovering_leaves_a_run_that_is_alive(tmp_path):
    with OutputFolder(tmp_path / "slide") as folder:
        (folder.path / "cells.csv").write_text("half")
        recover(tmp_path / "slide", discard=True)
        assert names(folder.path) == [MARK, "cells.csv"]
        finish(folder)


def test_differences(tmp_path):
    slide = tmp_path / "slide"
    with OutputFolder(slide) as folder:
        finish(folder, "one", **{"labels.ome.zarr/c": "chunk"})
    files = listed(slide)
    assert difference(slide, files) is None
    chunk = slide / "labels.ome.zarr" / "c"
    chunk.write_text("chUnk")
    assert difference(slide, files) == "labels.ome.zarr/c has changed since it was written"
    chunk.write_text("ch")
    assert difference(slide, files) == "labels.ome.zarr/c has 2 bytes, and 5 were written"
    chunk.unlink()
    assert difference(slide, files) == "labels.ome.zarr/c is missing"
    assert "its record names" in difference(slide, [File("../../x", 1, "")])


def test_every_file_of_the_report_is_known_to_be_ours():
    assert set(titles()) | {"report.html"} <= NAMES


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

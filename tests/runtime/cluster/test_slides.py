"""Large images in spans over real Dask workers: processes on this machine."""

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from distributed.diagnostics.plugin import WorkerPlugin

from cellseg.runtime import segment
from cellseg.runtime.batch.jobs import Job
from cellseg.runtime.cluster import slide_tasks
from cellseg.runtime.cluster.connect import connect
from cellseg.runtime.cluster.many import segment_many
from cellseg.runtime.cluster.run import run_jobs
from cellseg.runtime.cluster.slides import side_by_side
from cellseg.runtime.cluster.span import parse_span
from cellseg.runtime.common.threads import cores
from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.options import SegmentOptions

LOCAL = f"local:{min(2, cores())}"
slow = pytest.mark.slow


def every_byte(folder):
    """Return a digest of every file of a result; of the record the counts."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("report.html", "run.json")
    }
    return found | {"run.json": json.loads((folder / "run.json").read_text())["counts"]}


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    random = np.random.default_rng(3)
    picture = np.full((1500, 700, 3), 8, np.uint8)
    for _ in range(1500):
        centre = int(random.integers(0, 700)), int(random.integers(0, 1500))
        axes = int(random.integers(3, 16)), int(random.integers(3, 16))
        shade = tuple(int(value) for value in random.integers(150, 255, 3))
        cv2.ellipse(picture, centre, axes, int(random.integers(180)), 0, 360, shade, -1)
    picture[200:1460, 50:58] = 240  # a cell through nearly all spans
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(256, 256))
    return path


@pytest.fixture(scope="module")
def alone(slide, bright_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "slide"
    segment(slide, bright_model, output=folder, csv=True, probabilities=True)
    return every_byte(folder)


@slow
def test_two_workers_make_the_bytes_of_one_process(slide, alone, bright_model, tmp_path):
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.zeros((40, 50), np.uint8))
    events = []
    with connect(LOCAL) as connected:
        options = SegmentOptions(csv=True, probabilities=True)
        jobs = [Job(str(path), tmp_path / path.stem, options) for path in (small, slide)]
        outcomes = list(run_jobs(jobs, connected, str(bright_model), span=0.1, tell=events.append))
    assert [outcome.error for outcome in outcomes] == [None, None]
    results = {outcome.job.folder.name: outcome for outcome in outcomes}
    assert every_byte(tmp_path / "slide") == alone
    assert results["slide"].worker in ("1 worker", "2 workers")  # a slow start may leave one with nothing
    assert results["slide"].result.notes[-1].startswith("the image was computed in ")
    assert not any("spans" in note for note in results["small"].result.notes)
    landed = [event["landed"] for event in events if "landed" in event]
    assert landed == sorted(landed)
    assert landed[-1] == 1
    assert all(event["job"] == 1 for event in events if "landed" in event)


@slow
def test_a_worker_killed_in_the_middle_changes_no_byte(slide, alone, bright_model, tmp_path):
    with connect(LOCAL) as connected:
        pids = list(connected.client.run(os.getpid).values())
        landed = threading.Semaphore(0)

        def kill_some(event):
            if "landed" in event and landed.acquire(blocking=False):
                os.kill(pids.pop(), signal.SIGKILL)

        for _ in pids:
            landed.release()
        options = SegmentOptions(csv=True, probabilities=True)
        jobs = [Job(str(slide), tmp_path / "slide", options)]
        outcomes = list(run_jobs(jobs, connected, str(bright_model), span=0.1, tell=kill_some))
    assert not pids
    assert [outcome.error for outcome in outcomes] == [None]
    assert every_byte(tmp_path / "slide") == alone


def hang_at_each(folder):
    """Let the first task of each kind that follows the spans hang."""
    plain = slide_tasks.do

    def do(task, *arguments):
        if task.kind != "span":
            with contextlib.suppress(FileExistsError), Path(folder, task.kind).open("x"):
                time.sleep(3600)
        return plain(task, *arguments)

    slide_tasks.do = do


class HangAtEach(WorkerPlugin):
    """Puts that in place, also at workers that are started again."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, worker):
        hang_at_each(self.folder)


@slow
def test_tasks_that_hang_are_ended_and_done_again(slide, alone, bright_model, tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.cluster.run.STALL", 4.0)
    flags = tmp_path / "flags"
    flags.mkdir()
    with connect(LOCAL) as connected:
        connected.client.register_plugin(HangAtEach(str(flags)))
        job = Job(str(slide), tmp_path / "slide", SegmentOptions(csv=True, probabilities=True))
        (outcome,) = run_jobs([job], connected, str(bright_model), span=0.1)
    assert outcome.error is None
    assert {path.name for path in flags.iterdir()} == {"seam", "number", "labels", "finish"}
    assert every_byte(tmp_path / "slide") == alone


@slow
def test_what_a_stopped_client_left_is_gone_on_from(slide, alone, bright_model, tmp_path):
    given = {"output": tmp_path, "cluster": LOCAL, "csv": True, "probabilities": True, "resume": True}

    def stop(event):
        if event.get("landed", 0) > 0.3:
            raise KeyboardInterrupt

    job = Job(str(slide), tmp_path / "slide", SegmentOptions(csv=True, probabilities=True, resume=True))
    with connect(LOCAL) as connected:
        outcomes = run_jobs([job], connected, str(bright_model), span=0.1, tell=stop)
        with pytest.raises(KeyboardInterrupt):
            next(outcomes)
    assert not (tmp_path / "slide").exists()
    (outcome,) = segment_many([slide], bright_model, span=0.5, **given)
    assert outcome.error is None
    assert outcome.result.record.resumed_pixels > 0
    assert every_byte(tmp_path / "slide") == alone
    (outcome,) = segment_many([slide], bright_model, span=0.5, **given)
    assert outcome.earlier


@slow
def test_a_slide_that_fails_is_named_and_leaves_nothing(slide, bright_model, tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.cluster.slides.do_task", _fails)
    (outcome,) = segment_many([slide], bright_model, output=tmp_path, cluster=LOCAL, span=0.1)
    assert isinstance(outcome.error, ImageError)
    assert str(outcome.error) == "slide.tif: row 7 is damaged"
    assert not list(tmp_path.iterdir())


@slow
def test_a_slide_that_kills_workers_is_given_up_by_name(slide, bright_model, tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg.runtime.cluster.slides.do_task", _deadly)
    (outcome,) = segment_many([slide], bright_model, output=tmp_path, cluster="local:1", span=0.3)
    assert "slide.tif: 3 workers died on it" in str(outcome.error)
    assert not list(tmp_path.iterdir())


def _fails(plan, cut, task, number):
    raise ImageError("slide.tif: row 7 is damaged")


def _deadly(plan, cut, task, number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_value_of_the_option():
    assert parse_span("auto") == "auto"
    assert parse_span("none") == "none"
    assert parse_span("12.5") == 12.5
    for wrong in ("0", "-3", "nan", "inf", "many"):
        with pytest.raises(UsageError, match=f"span {wrong}|span '{wrong}'|wanted auto, none, or megapixels"):
            parse_span(wrong)


def test_outcomes_come_from_both_sides_and_errors_too():
    def slow_one():
        yield "a"
        yield "b"

    assert sorted(side_by_side(slow_one(), iter([None, "c", None]))) == ["a", "b", "c"]

    def fails():
        yield "a"
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        list(side_by_side(fails(), iter([])))

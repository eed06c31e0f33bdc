import csv
from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.batch.jobs import Job, Outcome, run_job
from cellseg.runtime.batch.summary import PAGE, TABLE, write_summary
from cellseg.runtime.cluster.many import segment_many
from cellseg.runtime.errors import ImageError
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


@pytest.fixture
def picture():
    image = np.zeros((100, 120), np.uint8)
    image[20:40, 30:60] = 250
    return image


@pytest.fixture
def outcomes(picture, tmp_path):
    made = []
    with LocalEngine(local_spec(1), 1) as engine:
        for name, size in (("b <i>", 0.5), ("a", None)):
            result = segment(picture, engine, output=tmp_path / name, pixel_size=size)
            made.append(Outcome(Job(f"{name}.tif", tmp_path / name, SegmentOptions()), result, worker="3"))
    wrong = Outcome(Job("=cmd()", tmp_path / "c", SegmentOptions()), error=ImageError("=cmd(): is\nbroken"))
    return [*made, wrong]


def test_a_row_an_image(outcomes, tmp_path):
    write_summary(outcomes, tmp_path)
    text = (tmp_path / "summary.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["image"] for row in rows] == ["'=cmd()", "a.tif", "b <i>.tif"]
    assert [row["state"] for row in rows] == ["failed", "done", "done"]
    assert rows[0]["notes"] == "'=cmd(): is broken"
    assert rows[1]["cells"] == "1"
    assert rows[1]["cells_per_mm2"] == ""
    assert float(rows[2]["cells_per_mm2"]) == pytest.approx(1 / (100 * 120 * 0.25e-6))
    assert float(rows[2]["median_area_um2"]) == pytest.approx(float(rows[2]["median_area_px"]) / 4)
    assert all((tmp_path / row["folder"] / "report.html").is_file() for row in rows[1:])


def test_the_page_links_to_what_is_there_and_takes_names_as_text(outcomes, tmp_path):
    write_summary(outcomes, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="b%20%3Ci%3E/report.html"' in page
    assert "<i>" not in page
    assert "3 images" in page
    assert "2 cells; 1 failed" in page
    assert "http" not in page.replace("http-equiv", "")


def test_whatever_is_raised_inside_is_that_images_error(picture, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyError("strange")

    with LocalEngine(local_spec(1), 1) as engine:
        job = Job("a.tif", tmp_path / "a", SegmentOptions())
        assert "no such file" in str(run_job(job, engine).error)
        monkeypatch.setattr("cellseg.runtime.batch.jobs.segment", broken)
        outcome = run_job(job, engine)
    assert isinstance(outcome.error, KeyError)
    assert "in broken" in outcome.trace


def test_many_one_after_the_other(picture, tmp_path, bright_model):
    import tifffile

    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", picture)
    outcomes = list(segment_many([tmp_path / "in"], bright_model, output=tmp_path / "out", min_score=None))
    assert [outcome.job.folder for outcome in outcomes] == [tmp_path / "out" / "a", tmp_path / "out" / "b"]
    assert all(outcome.result is not None and outcome.result.count == 1 for outcome in outcomes)
    assert Path(outcomes[0].result.folder).is_dir()


def test_files_that_are_not_ours_are_kept(outcomes, tmp_path):
    assert write_summary(outcomes, tmp_path) == [tmp_path / TABLE, tmp_path / PAGE]
    assert write_summary(outcomes, tmp_path) == [tmp_path / TABLE, tmp_path / PAGE]
    (tmp_path / TABLE).write_text("image,mpp\nmine.tif,0.5\n")
    assert write_summary(outcomes, tmp_path) == [tmp_path / PAGE]
    (tmp_path / PAGE).write_text("<title>my own</title>")
    assert write_summary(outcomes, tmp_path) == []
    assert (tmp_path / TABLE).read_text() == "image,mpp\nmine.tif,0.5\n"
    assert (tmp_path / PAGE).read_text() == "<title>my own</title>"
    (tmp_path / TABLE).write_bytes(bytes(300))  # as a failure of power leaves it
    (tmp_path / PAGE).unlink()
    (tmp_path / PAGE).mkdir()
    assert write_summary(outcomes, tmp_path) == [tmp_path / TABLE]

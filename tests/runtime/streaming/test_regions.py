"""Cells by regions of interest, from the file to every output."""

import csv
import gzip
import json

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import tifffile

from cellseg.runtime import Result, segment
from cellseg.runtime.batch.jobs import Job, Outcome
from cellseg.runtime.batch.summary import write_summary
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

#: Areas by name: x, y, edge.
AREAS = [
    ("Tumor", 0, 0, 200),
    ("<Stroma & co>", 250, 50, 300),
    ("Tumor", 20, 300, 100),
    ("core", 40, 40, 100),
]


def areas(path):
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]],
            },
            "properties": {"objectType": "annotation", "name": name},
        }
        for name, x, y, edge in AREAS
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Return a file with a disc every 40 pixels, 600 × 500."""
    picture = np.full((500, 600), 20, np.uint8)
    for y in range(20, 500, 40):
        for x in range(20, 600, 40):
            cv2.circle(picture, (x, y), 6, 230, -1)
    path = tmp_path_factory.mktemp("regions") / "discs.tif"
    tifffile.imwrite(path, picture)
    return path


@pytest.fixture(scope="module")
def made(slide):
    with LocalEngine(local_spec(1), 1) as engine:
        return segment(
            slide, engine, output=slide.with_name("out"), roi=areas(slide.with_name("a.geojson")), csv=True,
            pixel_size=0.5, tile=128,
        )  # fmt: skip


def test_every_cell_says_in_which_region_it_lies(made):
    table = pyarrow.parquet.read_table(made.folder / "cells.parquet")
    assert table.column_names[-1] == "roi"
    x, y = np.asarray(table["centroid_x"]) + 0.5, np.asarray(table["centroid_y"]) + 0.5
    # The core lies in the tumour: the smaller one counts.
    for name, at, top, edge in sorted(AREAS, key=lambda area: area[3]):
        inside = (x >= at) & (x < at + edge) & (y >= top) & (y < top + edge)
        if name == "Tumor":
            inside &= ~((x >= 40) & (x < 140) & (y >= 40) & (y < 140))
        assert inside.any()
        assert {table["roi"][int(row)].as_py() for row in np.flatnonzero(inside)} == {name}
    with (made.folder / "cells.csv").open(encoding="utf-8") as file:
        assert [row["roi"] for row in csv.DictReader(file)] == table["roi"].to_pylist()
    features = json.loads(gzip.decompress((made.folder / "cells.geojson.gz").read_bytes()))["features"]
    assert [each["properties"]["metadata"]["roi"] for each in features] == table["roi"].to_pylist()
    assert Result.open(made.folder).table["roi"].tolist() == table["roi"].to_pylist()
    assert len(Result.open(made.folder).cells) == made.count


def test_counts_and_densities_stand_in_the_record(made):
    regions = {region.name: region for region in made.record.focus.by_name}
    assert list(regions) == ["Tumor", "<Stroma & co>", "core"]
    tumour = regions["Tumor"]
    assert (tumour.polygons, tumour.pixels) == (2, 200**2 + 100**2)
    column = Result.open(made.folder).table["roi"].tolist()
    assert regions["core"].cells == column.count("core")
    # The core's cells are the tumour's as well.
    assert tumour.cells == column.count("Tumor") + column.count("core")
    assert tumour.cells_per_mm2 == pytest.approx(tumour.cells / (50_000 * 0.25e-6))
    assert tumour.cells_per_megapixel == pytest.approx(tumour.cells / 0.05)
    assert any("regions of interest overlap" in note for note in made.notes)


def test_the_report_has_a_table_of_regions(made):
    text = (made.folder / "report.html").read_text(encoding="utf-8")
    region = made.record.focus.by_name[1]
    assert "<th scope=row>&lt;Stroma &amp; co&gt;<td class=number>" in text
    assert f"<td class=number>{region.cells_per_mm2:,.0f}" in text
    assert "<Stroma" not in text
    assert "by_name" not in text


def test_the_summary_has_a_row_a_region(made, slide, tmp_path):
    with LocalEngine(local_spec(1), 1) as engine:
        whole = segment(slide, engine, output=tmp_path / "whole")
    outcomes = [Outcome(Job(str(slide), result.folder, SegmentOptions()), result) for result in (whole, made)]
    write_summary(outcomes, tmp_path)
    write_summary(outcomes, tmp_path)  # it knows its own file again
    with (tmp_path / "summary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], row["region"]) for row in rows] == [
        ("done", ""), ("region", "Tumor"), ("region", "<Stroma & co>"), ("region", "core"), ("done", "")
    ]  # fmt: skip
    region = made.record.focus.by_name[0]
    assert int(rows[1]["cells"]) == region.cells
    assert float(rows[1]["cells_per_mm2"]) == pytest.approx(region.cells_per_mm2, rel=1e-5)
    assert float(rows[1]["area_mm2"]) == pytest.approx(50_000 * 0.25e-6)
    write_summary(outcomes[:1], tmp_path)
    assert "region" not in (tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("options", [{"tile": 64}, {"labels": "tiff"}, {}])
def test_regions_do_not_depend_on_tiles(made, slide, options, tmp_path):
    with LocalEngine(local_spec(1), 1) as engine:
        other = segment(
            slide,
            engine,
            output=tmp_path / "out",
            roi=slide.with_name("a.geojson"),
            pixel_size=0.5,
            **options,
        )
    assert other.record.focus.by_name == made.record.focus.by_name
    for name in ("cells.parquet", "cells.geojson.gz"):
        assert (other.folder / name).read_bytes() == (made.folder / name).read_bytes()


def test_in_memory_and_without_cells(slide):
    with LocalEngine(local_spec(1), 1) as engine:
        found = segment(slide, engine, roi=slide.with_name("a.geojson"))
        polygons = segment(slide, engine, roi=[np.array([[0, 0], [300, 0], [300, 300], [0, 300]])])
        none = segment(np.zeros((64, 64), np.uint8), engine, roi=[np.array([[0, 0], [30, 0], [30, 30]])])
        plain = segment(slide, engine)
    assert set(found.table["roi"]) == {"Tumor", "<Stroma & co>", "core"}
    assert set(polygons.table["roi"]) == {"region 1"}
    assert none.table["roi"].tolist() == []
    assert none.record.focus.by_name[0].cells == 0
    assert "roi" not in plain.table
    assert plain.record.focus.by_name == ()


def test_cells_whose_centre_lies_in_no_region_are_told(slide):
    # A cell that a thin hook cuts to a bent strip has its centre outside.
    hook = [[10, 10], [30, 10], [30, 30], [28, 30], [28, 12], [10, 12]]
    with LocalEngine(local_spec(1), 1) as engine:
        picture = np.full((64, 64), 250, np.uint8)
        found = segment(picture, engine, roi=[np.array(hook)], levels=(0, 255))
    assert found.count == 1
    assert found.table["roi"].tolist() == [None]
    assert any("1 cells at the edge of a region" in note for note in found.notes)

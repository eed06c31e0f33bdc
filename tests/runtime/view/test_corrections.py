import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shapely.geometry import Polygon, shape

from cellseg.runtime.errors import UsageError
from cellseg.runtime.instances.outlines import outlines, renumbered
from cellseg.runtime.view.corrections import Corrections, corrected, to_geojson
from cellseg.runtime.view.scene import Scene


@pytest.fixture
def scene(finished):
    with Scene(finished) as opened:
        yield opened


def label_at(scene, x, y):
    return int(scene.labels_at(y, x, 1, 1)[0, 0])


def detections(text):
    features = json.loads(text)["features"]
    return [shape(f["geometry"]) for f in features if f["properties"]["objectType"] == "detection"]


def test_an_untouched_field(scene):
    text = to_geojson(scene, Corrections(field=(0, 0, 600, 300)))
    features = json.loads(text)["features"]
    assert features[0]["properties"] == {
        "objectType": "annotation",
        "name": "field",
        "metadata": {"image": "discs.tif", "size": "1200×900", "cells": "2"},
    }
    assert Polygon(features[0]["geometry"]["coordinates"][0]).bounds == (0, 0, 600, 300)
    found = detections(text)
    assert sorted(round(cell.area) for cell in found) == sorted(
        int((scene.labels_at(0, 0, 300, 600) == label_at(scene, x, y)).sum())
        for x, y in [(100, 90), (400, 120)]
    )


def test_deleted_merged_and_drawn(scene):
    two = [label_at(scene, 700, 600), label_at(scene, 610, 610)]
    square = [(520.0, 520.0), (540.0, 520.0), (540.0, 540.0), (520.0, 540.0)]
    given = Corrections(field=(500, 500, 800, 700), deleted=two[:1], drawn=[square])
    found = sorted(detections(to_geojson(scene, given)), key=lambda cell: cell.area)
    assert len(found) == 2
    assert found[0].bounds == pytest.approx((520, 520, 540, 540), abs=1)
    labels = corrected(
        scene.labels_at(500, 500, 200, 300), Corrections(field=(500, 500, 800, 700), merged=[two])
    )
    assert labels.max() == 1


def test_a_cell_at_the_edge_is_cut(scene):
    found = detections(to_geojson(scene, Corrections(field=(400, 100, 500, 200))))
    assert [cell.bounds[0] for cell in found] == [400]


@pytest.mark.parametrize("field", [(0, 0, 0, 10), (-1, 0, 5, 5), (0, 0, 1201, 10), (10, 10, 5, 20)])
def test_fields_that_are_none(scene, field):
    with pytest.raises(UsageError, match="does not lie in a picture of 1200×900"):
        to_geojson(scene, Corrections(field=field))


def test_fields_that_are_no_picture(scene):
    with pytest.raises(UsageError, match="the field is 31×200 pixels; mark one of 32 at least"):
        to_geojson(scene, Corrections(field=(0, 0, 31, 200)))


def test_every_cell_is_in_one_piece():
    labels = np.zeros((40, 60), np.int32)
    labels[5:15, 5:15], labels[5:15, 20:30] = 3, 4  # two pieces of one cell, and a gap
    labels[20:30, 5:45] = 7  # a third is drawn across this one
    labels[34:36, 34:36] = 9
    cross = [(20.0, 18.0), (30.0, 18.0), (30.0, 32.0), (20.0, 32.0)]
    found = corrected(labels, Corrections(field=(0, 0, 60, 40), merged=[[3, 4]], drawn=[cross]))
    assert found.max() == 5  # the merged one, the drawn one, two parts beside it, and the small one
    assert (found[5:15, 5:30] == found[5, 5]).all()
    for number in range(1, 6):
        assert cv2.connectedComponents((found == number).astype(np.uint8), connectivity=4)[0] == 2


def test_no_crumbs_are_left_of_what_is_drawn_upon():
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[5:15, 20:30] = 1, 2
    field = Corrections(field=(0, 0, 40, 40), drawn=[[(5.0, 5.0), (16.0, 5.0), (16.0, 12.9), (5.0, 12.9)]])
    labels[13:15, 8:15] = 0  # what would be left of the first: a few pixels of its last rows
    found = corrected(labels, field)
    assert found.max() == 2
    assert not found[14, 5:8].any()
    assert (found[5:15, 20:30] == found[5, 20]).all()


@pytest.mark.parametrize(
    "text",
    ['{"field": [0, 0, 9]}', '{"field": [0, 0, 9, 9], "more": 1}', "[]", '{"field": [0, 0, 9, 1e400]}'],
)
def test_nonsense_is_refused(text):
    with pytest.raises(ValidationError):
        Corrections.model_validate_json(text)


@given(st.integers(0, 2**32 - 1))
def test_outlines_hold_what_the_labels_hold(seed):
    random = np.random.default_rng(seed)
    _, labels = cv2.connectedComponents((random.random((12, 15)) < 0.4).astype(np.uint8), connectivity=4)
    labels = renumbered(np.where(labels > 0, labels * 7, 0).astype(np.int32))
    rings = outlines(labels)
    assert len(rings) == labels.max()
    firsts = [int(np.flatnonzero(labels == number)[0]) for number in range(1, labels.max() + 1)]
    assert firsts == sorted(firsts)
    for number, ring in enumerate(rings, 1):
        drawn = np.zeros((12, 15), np.uint8)
        cv2.drawContours(
            drawn,
            cv2.findContours((labels == number).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[
                0
            ],
            -1,
            1,
            -1,
        )
        assert Polygon(ring).area == drawn.sum()  # the ring is the outer one: holes are filled


def test_what_lies_too_far_apart_is_no_cell():
    labels = np.zeros((40, 1200), np.int32)
    labels[5:15, 5:15], labels[5:15, 1100:1110] = 1, 2
    with pytest.raises(
        UsageError, match="merged into cell 1 lie on 1105×10 pixels; one cell has 1024 at most"
    ):
        corrected(labels, Corrections(field=(0, 0, 1200, 40), merged=[[1, 2]]))

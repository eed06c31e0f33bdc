"""Negative and positive cells: rules, classes, H-score."""

from pathlib import Path

import numpy as np
import pytest

from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity.classes import NONE, choose_classes, h_score, positive_share
from cellseg.runtime.intensity.stains import Stains
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.options.positive import PositiveRule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("dab=0.2", PositiveRule("dab", (0.2,))),
        (" nucleus:DAB = 0.2 , 0.4,0.6", PositiveRule("DAB", (0.2, 0.4, 0.6))),
        ("ring:CD3=300", PositiveRule("CD3", (300,), "ring")),
        ("cell:C:1=1e3", PositiveRule("C:1", (1000,), "cell")),
        ("C:1=5", PositiveRule("C:1", (5,))),
        ("a=b=5", PositiveRule("a=b", (5,))),
        ("dab=-0.1", PositiveRule("dab", (-0.1,))),
    ],
)
def test_rules(text, rule):
    assert PositiveRule.read(text) == rule == PositiveRule.read(str(rule))
    assert SegmentOptions(positive=text).positive == rule == SegmentOptions(positive=rule).positive
    assert SegmentOptions(positive=text).plain()["positive"] == str(rule)


@pytest.mark.parametrize(
    "text", ["", "dab", "dab=", "=0.2", "ring:=1", "dab=x", "dab=0.2,0.4", "dab=0.4,0.2,0.6", "dab=nan",
             "dab=1,1,2", "dab=1,2,3,4", 5],
)  # fmt: skip
def test_wrong_rules(text):
    with pytest.raises(UsageError, match=r"positive is .*wanted"):
        SegmentOptions(positive=text)


def choose(text, names=("red", "green", "blue"), stains="hdab"):
    known = None if stains is None else Stains.known(stains)
    return choose_classes(PositiveRule.read(text), names, known, Path("a.tif"))


def test_markers():
    assert choose("DAB=1").column == "mean_od_1"
    assert choose("h=1").marker == "Hematoxylin"
    assert choose("Haematoxylin=1").column == "mean_od_0"
    assert choose("ring:dab=1").column == "ring_mean_od_1"
    assert choose("cell:cd3=1", ("DAPI", "CD3"), None).column == "cell_mean_intensity_1"
    assert choose("1=1", ("DAPI", "CD3"), None).marker == "CD3"
    assert choose_classes(None, (), None, Path("a")) is None
    with pytest.raises(UsageError, match=r"no stain or channel called 'dap'; did you mean 'dab'\?"):
        choose("dap=1")
    with pytest.raises(UsageError, match="stains are measured with stains='auto'"):
        choose("dab=1", stains=None)
    with pytest.raises(UsageError, match="several channels are called 'x'"):
        choose("x=1", ("x", "X "), None)


def test_classes():
    values = np.array([-1, 0.19999, 0.2, 0.5, 9, np.nan, np.inf])
    one, three = choose("dab=0.2"), choose("dab=0.2,0.4,0.6")
    assert one.of({"mean_od_1": values}).tolist() == [0, 0, 1, 1, 1, NONE, NONE]
    assert three.of({"mean_od_1": values}).tolist() == [0, 0, 1, 2, 3, NONE, NONE]
    assert three.count(three.of({"mean_od_1": values})).tolist() == [2, 1, 1, 1]
    assert one.names == ("Negative", "Positive")
    assert three.names == ("Negative", "1+", "2+", "3+")


def test_scores():
    assert positive_share([3, 1]) == 0.25
    assert positive_share([0, 0]) is None
    assert h_score([3, 1]) is None
    assert h_score([10, 20, 30, 40]) == 20 + 60 + 120
    assert h_score([0, 0, 0, 0]) is None
    assert h_score([0, 0, 0, 7]) == 300

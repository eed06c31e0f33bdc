import numpy as np
import pytest

from cellseg.runtime.errors import UsageError
from cellseg.runtime.view.scene import Scene
from cellseg.runtime.view.style import Style, deal, span


@pytest.fixture
def scene(finished):
    with Scene(finished) as opened:
        yield opened


def test_parse():
    style = Style.parse({"by": "area", "min_score": "0.25", "fill": "", "colour": "2", "other": "x"})
    assert style == Style(by="area", min_score=0.25, colour=2)
    with pytest.raises(UsageError, match="min_area is 'big'; wanted a number"):
        Style.parse({"min_area": "big"})


def test_limits_hide_what_the_table_says(scene):
    area = scene.column("area")
    limit = float(np.median(area))
    shown = Style(min_area=limit).shown(scene)
    assert np.array_equal(shown, area >= limit)
    assert 0 < shown.sum() < len(shown)
    colour_of, _ = Style(min_area=limit).lookup(scene)
    assert np.array_equal(colour_of[scene.column("label")] > 0, shown)
    assert colour_of[0] == 0


def test_a_score_that_is_no_number_is_shown(scene, monkeypatch):
    monkeypatch.setitem(scene._columns, "score", np.array([np.nan, 0.1, 0.5, 0.6, 0.7, 0.8]))
    assert Style(min_score=0.55).shown(scene).tolist() == [True, False, False, True, True, True]


def test_a_scale_runs_with_the_values(scene):
    colour_of, palette = Style(by="area").lookup(scene)
    colours = colour_of[scene.column("label")].astype(int)
    order = np.argsort(scene.column("area"))
    assert (np.diff(colours[order]) >= 0).all()
    assert colours.min() == 1
    assert colours.max() == 255
    assert palette[0].tolist() == [0, 0, 0, 0]
    assert (palette[1:, 3] == 255).all()


def test_classes_have_colours_of_their_own(scene, monkeypatch):
    names = np.array(["negative", "positive", "negative", "positive", "weak", "weak"], object)
    monkeypatch.setitem(scene._columns, "class", names)
    colour_of, palette = Style(by="class").lookup(scene)
    colours = [tuple(palette[colour_of[label]]) for label in scene.column("label")]
    assert colours[0] == colours[2]
    assert len({colours[0], colours[1], colours[4]}) == 3


def test_one_colour_for_all(scene):
    colour_of, _ = Style(colour=3).lookup(scene)
    assert set(colour_of[1:]) == {3}


def test_span_of_nothing_and_of_one_value():
    assert span(np.array([])) == (0.0, 1.0)
    assert span(np.array([np.nan, np.inf])) == (0.0, 1.0)
    assert span(np.full(5, 3.0)) == (2.5, 3.5)


def test_deal_takes_any_number():
    colours, palette = deal(np.arange(100), ((1, 2, 3), (4, 5, 6)))
    assert set(colours) == {1, 2}
    assert palette[1].tolist() == [3, 2, 1, 255]

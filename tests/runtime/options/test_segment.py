"""Options are said once: what is made of them agrees, and wrong values are refused in one line."""

import dataclasses
import doctest
import inspect
import subprocess
import sys

import numpy as np
import pytest

from cellseg.runtime import segment
from cellseg.runtime.batch.inputs import COLUMNS
from cellseg.runtime.cli import infer
from cellseg.runtime.cli.options import chosen, parameter
from cellseg.runtime.errors import UsageError
from cellseg.runtime.options import OPTIONS, SegmentOptions
from cellseg.runtime.options import segment as options
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec


def test_every_option_is_an_option_of_everything() -> None:
    keywords = set(inspect.signature(segment).parameters) - {
        "image",
        "model",
        "output",
        "progress",
        "options",
    }
    assert keywords == set(OPTIONS) == {field.name for field in dataclasses.fields(SegmentOptions)}
    given = {command.name: command for command in infer.main.params}
    for name, option in OPTIONS.items():
        assert given[parameter(name, option)].help == (option.off or option.text)
        assert f"{name} : " in SegmentOptions.__doc__
    assert {name for name, _ in COLUMNS.values()} == {name for name, each in OPTIONS.items() if each.column}


def test_the_command_without_options_means_the_defaults() -> None:
    context = infer.main.make_context("cellseg-infer", ["a.tif"])
    assert chosen(context.params) == SegmentOptions()
    given = ["--no-rescale", "--mpp", "0.5", "--channels", "DAPI,1", "--levels", "3", "9"]
    given += ["--backend", "openvino", "--csv", "--min-score", "0"]
    context = infer.main.make_context("cellseg-infer", ["a.tif", *given])
    assert chosen(context.params) == SegmentOptions(
        rescale=False,
        pixel_size=0.5,
        channels=("DAPI", "1"),
        levels=(3, 9),
        engine="openvino",
        csv=True,
        min_score=0,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_score": -0.1}, r"min_score is -0\.1; wanted a number from 0 to 1"),
        ({"min_score": float("nan")}, "min_score is nan; wanted a number from 0 to 1"),
        ({"min_score": "high"}, "min_score is 'high'; wanted"),
        ({"pixel_size": 0}, "pixel_size is 0; wanted a number above 0"),
        ({"tile": 0}, "tile is 0; wanted a whole number from 1"),
        ({"tile": 32.5}, "tile is 32.5; wanted"),
        ({"z": True}, "z is True; wanted a whole number from 0"),
        ({"levels": (1, 2, 3)}, "wanted two numbers, black and white"),
        ({"levels": (1, float("inf"))}, "wanted two numbers"),
        ({"channels": []}, r"channels is \[\]; wanted names or numbers"),
        ({"labels": "jpeg"}, "labels is 'jpeg'; wanted zarr, tiff or png"),
        ({"tissue": None}, "tissue is None; wanted auto or none"),
        ({"csv": "yes"}, "csv is 'yes'; wanted True or False"),
        ({"device": ""}, "device is ''; wanted a name"),
        ({"roi": 3}, "roi is 3; wanted a path"),
        ({"channels": [1.5]}, r"channels is \[1\.5\]"),
    ],
)
def test_wrong_values(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SegmentOptions(**given)
    assert "\n" not in str(caught.value)


def test_values_of_numpy_and_single_names() -> None:
    made = SegmentOptions(channels="DAPI", tile=np.int32(64), csv=np.True_, levels=np.array([1, 2]))
    assert made == SegmentOptions(channels=("DAPI",), tile=64, csv=True, levels=(1.0, 2.0))
    assert type(made.tile) is int
    assert SegmentOptions(channels=2).channels == (2,)


def test_options_are_used_again_and_keywords_go_before() -> None:
    picture = np.zeros((60, 60), np.uint8)
    picture[20:40, 20:40] = 250
    kept = SegmentOptions(pixel_size=0.5, tile=32)
    with LocalEngine(local_spec(1), 1) as engine:
        first = segment(picture, engine, options=kept).record
        second = segment(picture, engine, options=kept, tile=40).record
    assert (first.settings.tile, second.settings.tile) == (32, 40)
    assert first.image.pixel_size_um == second.image.pixel_size_um == 0.5
    assert second.options["tile"] == 40
    assert first.options["pixel_size"] == 0.5


def test_the_table_costs_help_nothing() -> None:
    code = "import sys; import cellseg.runtime.options; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "click", "pydantic"} & set(loaded.split())


def test_examples() -> None:
    assert doctest.testmod(options).failed == 0

"""The record that a model carries."""

import json

import pytest
from pydantic import ValidationError

from cellseg.runtime.errors import ModelError
from cellseg.runtime.model.spec import CellDiameter, Head, ModelSpec, SplitSettings

SPEC = ModelSpec(
    name="n",
    architecture="MCUNET",
    channels=1,
    heads=(Head(name="mask"), Head(name="density", full_scale=0.01, power=2.0)),
    multiple=8,
    halo=16,
    receptive_field=40,
)


def test_a_record_survives_the_round_trip() -> None:
    assert ModelSpec.from_json(SPEC.to_json(), "m.onnx") == SPEC
    assert SPEC.head_names == ("mask", "density")


def test_a_record_without_a_diameter_is_read() -> None:
    old = json.loads(SPEC.to_json())
    del old["diameter"]
    assert ModelSpec.from_json(json.dumps(old), "old.onnx") == SPEC
    sized = SPEC.model_copy(update={"diameter": CellDiameter(median=20, low=10, high=40)})
    assert ModelSpec.from_json(sized.to_json(), "m.onnx") == sized


@pytest.mark.parametrize(
    "sizes", [(20, 21, 40), (20, 10, 19), (0, 0, 9), (20, -1, 40), (20, 10, float("inf"))]
)
def test_diameters_that_are_none(sizes: tuple[float, float, float]) -> None:
    median, low, high = sizes
    with pytest.raises(ValidationError):
        CellDiameter(median=median, low=low, high=high)


@pytest.mark.parametrize("version", [0, 2, 9, -1])
def test_another_format_is_refused_by_its_number(version: int) -> None:
    # Another format has other fields too; they must not be blamed in its place.
    text = json.dumps(json.loads(SPEC.to_json()) | {"format": version, "unheard_of": 1})
    with pytest.raises(ModelError) as caught:
        ModelSpec.from_json(text, "m.onnx")
    message = str(caught.value)
    assert message.startswith("m.onnx: its cellseg specification does not fit this release (format 1): ")
    assert f"format: found {version}, which this release does not read" in message
    assert "export the model again with this release" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"channels": 2}, "channels: "),
        ({"unheard_of": 1}, "unheard_of: "),
        ({"format": None}, "format: "),
        ({"format": "1"}, "format: "),
        ({"heads": [{"name": "boundary"}]}, "record: heads must start with 'mask'"),
        ({"halo": 12}, "record: halo 12 is not a multiple of 8"),
        ({"tile": 32}, "record: tile 32 leaves no core inside a halo of 16"),
        ({"split": {"mask_threshold": 300}}, "split.mask_threshold: "),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], part: str) -> None:
    text = json.dumps(json.loads(SPEC.to_json()) | change)
    with pytest.raises(ModelError) as caught:
        ModelSpec.from_json(text, "m.onnx")
    message = str(caught.value)
    assert f"(format 1): {part}" in message
    assert "Value error" not in message
    assert "\n" not in message


def test_settings_suit_the_heads() -> None:
    alone = SplitSettings.suited(("mask",))
    bounded = SplitSettings.suited(("mask", "boundary"))
    assert SplitSettings.suited(("mask", "boundary", "density")).density_weight > 0
    assert bounded.density_weight == 0
    assert alone.persistence < bounded.persistence

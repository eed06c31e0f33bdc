import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.errors import ImageError
from cellseg.runtime.intensity.normalization import Normalization, luma, measure, to_channels


def test_percentiles_map_to_the_ends_of_a_byte() -> None:
    sample = np.arange(1000, dtype=np.uint16).reshape(10, 100, 1) + 500
    found = measure(sample)
    assert (found.low, found.high) == (504, 1497)
    out = found.apply(sample)
    assert (out.min(), out.max()) == (0, 255)
    assert out.dtype == np.uint8


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_empty_slide_stays_dark(dtype: str) -> None:
    level = 1000 if dtype == "float32" else 100
    noise = np.random.default_rng(0).integers(level, level + 4, (64, 64, 1)).astype(dtype)
    assert measure(noise).apply(noise).max() <= 128


def test_channels_are_stretched_jointly() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 0], image[..., 1] = 200, 100
    r, g, b = measure(image).apply(image)[0, 0]
    assert (r, b) == (255, 0)
    assert g == 128


@given(st.data(), st.sampled_from(["uint8", "uint16"]))
def test_lookup_is_the_rounded_fraction_and_is_what_apply_does(data: st.DataObject, dtype: str) -> None:
    top = np.iinfo(dtype).max
    low = data.draw(st.integers(0, top - 1))
    high = data.draw(st.integers(low + 1, top))
    mapping = Normalization(low, high, dtype)
    assert all(0 <= part < 65536 for part in mapping.fixed_point)
    table = mapping.lookup()
    assert table is not None
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (table[low], table[high]) == (0, 255)
    exact = 255 * np.clip((np.arange(top + 1) - low) / (high - low), 0, 1)
    assert np.abs(table - exact).max() <= 0.52
    values = np.array([[0, 17, 255]], dtype)
    assert (mapping.apply(values) == table[values]).all()


def test_a_white_slide_stays_white() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    assert measure(white).apply(white).min() == 255


def test_floats_clip_round_and_survive_nan() -> None:
    mapping = Normalization(0.0, 1.0, "float32")
    assert mapping.lookup() is None
    values = np.array([-np.inf, -1, 0, 0.5, 1, 2, np.inf, np.nan], np.float32)
    assert mapping.apply(values).tolist() == [0, 0, 0, 128, 255, 255, 255, 0]


def test_floats_without_a_finite_value() -> None:
    with pytest.raises(ImageError, match="no finite pixel"):
        measure(np.full((3, 3, 1), np.nan, np.float32))
    assert measure(np.zeros((3, 3, 1), np.float32)).apply(np.zeros((3, 3, 1), np.float32)).max() == 0


def test_full_scale_leaves_bytes_alone() -> None:
    assert (Normalization.full_scale(np.dtype("uint8")).lookup() == np.arange(256)).all()
    assert Normalization.full_scale(np.dtype("float32")).high == 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ImageError, match="int64 are not supported"):
        measure(np.zeros((2, 2, 1), np.int64))
    with pytest.raises(ImageError, match="holds no pixel"):
        measure(np.zeros((0, 2, 1), np.uint8))
    for low, high in ((1.0, 1.0), (np.nan, 1.0), (0.0, np.inf)):
        for dtype in ("uint8", "float32"):
            with pytest.raises(ImageError, match="finite low < high"):
                Normalization(low, high, dtype)
    with pytest.raises(ImageError, match="whole numbers of 0…255, found 300"):
        Normalization(1.0, 300.0, "uint8")
    with pytest.raises(ImageError, match="for uint8 pixels, found uint16"):
        Normalization(0.0, 1.0, "uint8").apply(np.zeros(3, np.uint16))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_channel_conversions(dtype: type) -> None:
    grey = np.arange(6, dtype=dtype).reshape(2, 3)
    rgb = to_channels(grey, 3)
    assert rgb.shape == (2, 3, 3)
    assert (rgb == grey[:, :, None]).all()
    assert to_channels(rgb, 3) is rgb
    back = to_channels(rgb, 1)
    assert back.dtype == dtype
    np.testing.assert_allclose(back[:, :, 0], grey, rtol=1e-6)
    # Whether a second or fourth channel is alpha, the file must say.
    for count in (2, 4):
        with pytest.raises(ImageError, match="1 or 3 channels"):
            to_channels(np.zeros((2, 3, count), dtype), 3)


def test_luma_of_the_brightest_pixel_does_not_overflow() -> None:
    assert luma(np.full((1, 1, 3), 65535, np.uint16)).item() == 65535
    assert luma(np.array([[[255, 0, 0]]], np.uint8)).item() == 76


def test_unknown_channel_counts() -> None:
    with pytest.raises(ImageError, match=r"shape \(2, 2, 5\)"):
        to_channels(np.zeros((2, 2, 5), np.uint8), 3)
    with pytest.raises(ImageError, match="1 or 3 channels, not 2"):
        to_channels(np.zeros((2, 2, 3), np.uint8), 2)


def field(dtype: str, edge: int, bright: bool = True) -> np.ndarray:
    """Four nuclei in the middle of a field of noise, the same whatever its size; or dark ones in light."""
    back, gain, noise = {"uint8": (20, 150, 2), "uint16": (300, 2000, 12), "float32": (0.1, 1, 0.01)}[dtype]
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :80]
    spots = sum(np.exp(-((((y - a) ** 2 + (x - b) ** 2) / 50) ** 2)) for a in (20, 60) for b in (20, 60))
    picture = back + rng.normal(0, noise, (edge, edge))
    at = (edge - 80) // 2
    picture[at : at + 80, at : at + 80] += gain * spots
    if not bright:
        picture = 220 - picture
    return picture.round(3 if dtype == "float32" else 0).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_few_cells_look_the_same_however_large_the_empty_field(dtype: str) -> None:
    small, large = (measure(field(dtype, edge)) for edge in (160, 1200))
    assert large.high == pytest.approx(small.high, rel=0.15)
    nucleus = field(dtype, 80)[18:22, 18:22].mean()
    assert large.high > 0.8 * nucleus  # not a level of the ground


def test_a_few_dark_cells_on_glass_keep_their_darkness_too() -> None:
    small, large = (measure(field("uint8", edge, bright=False)) for edge in (160, 1200))
    assert large.low == pytest.approx(small.low, abs=15)


def test_hot_pixels_are_no_cells() -> None:
    picture = np.random.default_rng(0).normal(300, 12, (600, 600)).round().astype(np.uint16)
    plain = measure(picture)
    picture[np.random.default_rng(1).random(picture.shape) < 0.001] = 60000
    assert measure(picture).high == pytest.approx(plain.high, abs=3)

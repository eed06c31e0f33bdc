"""Where crops lie: cut sparingly, on whole pixels where nothing is scaled."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg.train.data.placement import Placement


@given(
    st.integers(0, 10_000),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([8, 32]),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_a_cut_window_gives_the_same_crop_as_the_whole_image(
    seed: int, height: int, width: int, size: int, strength: float
) -> None:
    plane = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.float32)
    place = Placement.draw(np.random.default_rng(seed), height, width, size, strength)
    y0, x0, y1, x1 = place.window(height, width)
    part = place.warp(plane[y0:y1, x0:x1], smooth=False, origin=(y0, x0))
    np.testing.assert_array_equal(part, place.warp(plane, smooth=False))


@given(st.integers(0, 10_000), st.integers(20, 60), st.integers(20, 60))
def test_without_augmentation_a_crop_is_a_turned_piece_of_the_image(
    seed: int, height: int, width: int
) -> None:
    image = np.arange(height * width, dtype=np.float32).reshape(height, width)
    place = Placement.draw(np.random.default_rng(seed), height, width, 16, 0.0)
    crop = place.warp(image, smooth=True)
    assert place.inside(height, width).all()
    assert np.unique(crop).size == 16 * 16
    y, x = np.divmod(crop.astype(int), width)
    assert (np.ptp(y), np.ptp(x)) == (15, 15)
    step = {abs(float(d)) for axis in (0, 1) for d in np.unique(np.diff(crop, axis=axis))}
    assert step == {1.0, float(width)}

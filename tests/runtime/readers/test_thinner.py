import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg.runtime.readers.area import Thinner


@given(st.integers(1, 80), st.integers(1, 60), st.integers(1, 30), st.data())
def test_what_is_passed_on_does_not_depend_on_the_bands(
    height: int, width: int, band: int, data: st.DataObject
) -> None:
    out_height, out_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    picture = np.arange(height * width).reshape(height, width, 1)
    thinner = Thinner(height, width, out_height, out_width)
    found = np.concatenate([thinner(picture[y : y + band]) for y in range(0, height, band)])
    assert found.shape[:2] == thinner.size
    if len(found) > 1:
        assert (found[:, 0, 0] == picture[:: found[1, 0, 0] // width, 0, 0][: len(found)]).all()
    assert out_height <= found.shape[0]
    assert out_width <= found.shape[1]

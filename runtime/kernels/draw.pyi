from typing import Any

import numpy as np
from numpy.typing import NDArray

def draw_rings(
    points: NDArray[Any],
    start: NDArray[np.int64],
    colours: NDArray[np.uint8],
    width: float,
    covered: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    x_scale: float = 1,
    y_scale: float = 1,
    shift: float = 0,
) -> None: ...
def lay_over(
    picture: NDArray[np.uint8],
    covered: NDArray[np.uint8],
    colour: NDArray[np.uint8],
    palette: NDArray[np.uint8],
) -> None: ...

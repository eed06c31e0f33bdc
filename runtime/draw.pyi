import numpy as np
from numpy.typing import NDArray

def draw_rings(
    points: NDArray[np.float32],
    start: NDArray[np.int64],
    colours: NDArray[np.uint8],
    width: float,
    covered: NDArray[np.uint8],
    colour: NDArray[np.uint8],
) -> None: ...

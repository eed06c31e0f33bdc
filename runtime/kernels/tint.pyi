import numpy as np
from numpy.typing import NDArray

def tint(
    labels: NDArray[np.int32],
    colour_of: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    inside: int,
    out: NDArray[np.uint8],
) -> None: ...

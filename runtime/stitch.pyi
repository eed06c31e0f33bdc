import numpy as np
from numpy.typing import NDArray

def stitch(
    planes: NDArray[np.uint8], cores: NDArray[np.int64], halo: int, band: NDArray[np.uint8]
) -> None: ...

import numpy as np
from numpy.typing import NDArray

def paint(labels: NDArray[np.int32], y: int, runs: NDArray[np.void], numbers: NDArray[np.int32]) -> None: ...
def label_image(
    mask: NDArray[np.uint8], threshold: int = 1, connectivity: int = 8
) -> tuple[NDArray[np.int32], int]: ...

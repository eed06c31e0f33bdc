from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class Painter:
    def __init__(self, batches: Sequence[tuple[NDArray[np.void], NDArray[np.int32]]]) -> None: ...
    def paint(self, labels: NDArray[np.int32], y: int) -> None: ...

def label_image(
    mask: NDArray[np.uint8], threshold: int = 1, connectivity: int = 8
) -> tuple[NDArray[np.int32], int]: ...

import numpy as np
from numpy.typing import NDArray

def measure_labels(
    labels: NDArray[np.int32],
    count: int,
    cell_dtype: np.dtype[np.void],
    image_rows: NDArray[np.uintp] | None,
    image_kind: int,
    channels: int,
) -> tuple[NDArray[np.void], NDArray[np.float64], NDArray[np.int32]]: ...

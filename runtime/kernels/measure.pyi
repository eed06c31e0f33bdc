import numpy as np
from numpy.typing import NDArray

CELL_DTYPE: np.dtype[np.void]

def measure_labels(
    labels: NDArray[np.int32],
    count: int,
    image_rows: NDArray[np.uintp] | None,
    image_kind: int,
    channels: int,
    stain_table: NDArray[np.int32] | None = None,
    stains: int = 0,
) -> tuple[NDArray[np.void], NDArray[np.float64], NDArray[np.int32]]: ...

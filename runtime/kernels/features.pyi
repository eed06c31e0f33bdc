import numpy as np
from numpy.typing import NDArray

def capacity(cells: int, vertices: int, columns: int, key_bytes: int) -> int: ...
def write_features(
    outline: NDArray[np.int32],
    outline_decimals: int,
    start: NDArray[np.int64],
    labels: NDArray[np.int32],
    values: NDArray[np.int64],
    decimals: NDArray[np.int32],
    keys: NDArray[np.uint8],
    key_start: NDArray[np.int32],
    says: NDArray[np.int32],
    said: NDArray[np.uint8],
    said_start: NDArray[np.int32],
    space_high: int,
    space_low: int,
    out: NDArray[np.uint8],
    nuclei: NDArray[np.int32] | None = None,
    nuclei_start: NDArray[np.int64] | None = None,
) -> int: ...

from typing import Any

import numpy as np
from numpy.typing import NDArray

def resample(
    source: NDArray[Any],
    row_first: NDArray[np.int64],
    row_weights: NDArray[np.float32],
    column_first: NDArray[np.int64],
    column_weights: NDArray[np.float32],
    out: NDArray[Any],
) -> None: ...
def shrink_rows(
    rows: NDArray[Any], top: int, height: int, line: NDArray[np.float32], out: NDArray[Any]
) -> None: ...

from typing import Any

import numpy as np
from numpy.typing import NDArray

def use_instructions(level: int | None = None) -> int: ...
def gather(
    rows: NDArray[Any],
    top: int,
    height: int,
    origins: NDArray[np.int64],
    batch: NDArray[np.uint8],
    pick: NDArray[np.int32],
    luma: bool,
    low: int,
    span: int,
    shift: int,
    factor: int,
    offset: float,
    scale: float,
) -> None: ...

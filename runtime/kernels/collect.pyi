from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Collector:
    def __init__(self, height: int, width: int, names: list[str]) -> None: ...
    def take(
        self,
        batches: Sequence[tuple[NDArray[np.void], NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]],
        y0: int,
        y1: int,
        first_number: int,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int32], NDArray[np.int64]]: ...

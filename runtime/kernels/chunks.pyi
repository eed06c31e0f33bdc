import numpy as np
from numpy.typing import NDArray

def cut(rows: NDArray[np.int32], x: int, block: NDArray[np.int32]) -> bool: ...

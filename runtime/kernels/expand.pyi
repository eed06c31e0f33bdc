import numpy as np
from numpy.typing import NDArray

def expand(
    labels: NDArray[np.int32],
    begin: int,
    end: int,
    x0: int,
    x1: int,
    limit: int,
    out: NDArray[np.int32],
) -> None: ...
def measure_cells(
    nuclei: NDArray[np.int32],
    cells: NDArray[np.int32],
    row0: int,
    labels: NDArray[np.int32],
    boxes: NDArray[np.int32],
    image_rows: NDArray[np.uintp] | None,
    image_kind: int,
    channels: int,
    stain_table: NDArray[np.int32] | None = None,
    stains: int = 0,
) -> tuple[
    NDArray[np.void], NDArray[np.float64], NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]
]: ...

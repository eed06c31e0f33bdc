import numpy as np
from numpy.typing import NDArray

def stitch(
    planes: NDArray[np.uint8], cores: NDArray[np.int64], halo: int, band: NDArray[np.uint8]
) -> None: ...
def add_across(
    planes: NDArray[np.uint8],
    places: NDArray[np.int64],
    top: int,
    height: int,
    across: NDArray[np.uint16],
    alone_y0: int,
    alone_y1: int,
    sums: NDArray[np.uint16],
    band: NDArray[np.uint8],
    row0: int,
) -> None: ...
def finish_rows(
    sums: NDArray[np.uint16],
    index: int,
    core: int,
    halo: int,
    down: NDArray[np.uint16],
    begin: int,
    end: int,
    shared: NDArray[np.int64],
    alone_y0: int,
    alone_y1: int,
    row: NDArray[np.uint32],
    band: NDArray[np.uint8],
) -> None: ...

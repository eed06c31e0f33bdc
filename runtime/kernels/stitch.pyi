import numpy as np
from numpy.typing import NDArray

def use_instructions(level: int | None = None) -> int: ...
def stitch(
    planes: NDArray[np.uint8], cores: NDArray[np.int64], halo: int, band: NDArray[np.uint8]
) -> None: ...
def keep(
    planes: NDArray[np.uint8],
    which: NDArray[np.int64],
    index: int,
    core: int,
    halo: int,
    height: int,
    columns: NDArray[np.int64],
    alone_y0: int,
    alone_y1: int,
    kept: NDArray[np.uint8],
    band: NDArray[np.uint8],
    row0: int,
) -> None: ...
def finish_rows(
    kept: NDArray[np.uint8],
    index: int,
    core: int,
    halo: int,
    columns: NDArray[np.int64],
    across: NDArray[np.uint16],
    down: NDArray[np.uint16],
    begin: int,
    end: int,
    shared: NDArray[np.int64],
    sums: NDArray[np.uint16],
    row: NDArray[np.uint32],
    band: NDArray[np.uint8],
) -> None: ...

import numpy as np
from numpy.typing import NDArray

from ..model.spec import JoinRule, ScoreRule

CELL_RUN_DTYPE: np.dtype[np.void]
LIMITS_DTYPE: np.dtype[np.void]
NO_LIMITS: tuple[int, int, int, int]

class Splitter:
    def __init__(
        self,
        *,
        threshold: int,
        boundary_factor: NDArray[np.uint8] | None,
        density_factor: NDArray[np.uint8] | None,
        distance_height: NDArray[np.uint8] | None,
        weights: NDArray[np.uint16],
        probability: NDArray[np.float64],
        mass: NDArray[np.float64],
        persistence: int,
        min_seed_area: int,
        min_seed_mass: float,
        min_area: int,
        max_hole_area: int,
        hole_connectivity: int,
        join: JoinRule | None,
        score: ScoreRule | None,
        planes: tuple[str, ...],
    ) -> None: ...
    def process(
        self,
        components: NDArray[np.void],
        runs: NDArray[np.void],
        limits: NDArray[np.void] | None,
        row0: int,
        mask_rows: NDArray[np.uintp],
        boundary_rows: NDArray[np.uintp] | None,
        density_rows: NDArray[np.uintp] | None,
        image_rows: NDArray[np.uintp] | None,
        image_kind: int,
        channels: int,
        stain_table: NDArray[np.int32] | None = None,
        stains: int = 0,
    ) -> tuple[
        NDArray[np.void],
        NDArray[np.float64],
        NDArray[np.int32],
        NDArray[np.void],
        NDArray[np.void],
        int,
        int,
    ]: ...

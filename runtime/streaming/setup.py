"""All that has been decided about a slide before its first tile, and who takes what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..backends import Backend
from ..geometry.coverage import Coverage
from ..geometry.named import NamedRegions
from ..geometry.regions import Polygons
from ..geometry.tiling import TileGrid
from ..geometry.tissue import Tissue
from ..instances import Strip
from ..instances.full_resolution import FullResolution
from ..intensity.channels import ChannelChoice
from ..intensity.normalization import Normalization
from ..model.spec import SplitSettings
from ..options import Blend
from ..readers import SlideReader
from ..sizing import Scaling
from .measures import Measures


class Sink(Protocol):
    """What takes finished strips; every writer is one."""

    def write(self, strip: Strip) -> None:
        """Take the next strip; it does not change, and its memory is used again when nobody refers to it."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """All that has been decided about a slide before its first tile."""

    #: What is read: the slide, at the model's scale where that is known.
    reader: SlideReader
    #: Prepared for ``grid.tile``.
    backend: Backend
    grid: TileGrid
    choice: ChannelChoice
    mapping: Normalization
    split: SplitSettings
    #: Threads that split and measure.
    workers: int
    #: Tiles of a batch that are asked for.
    batch: int = 1
    #: Micrometres a pixel of the slide, where known.
    pixel_size: float | None = None
    #: The slide, where ``reader`` shows it at another scale.
    unscaled: SlideReader | None = None
    #: Why it is read at that scale.
    scaling: Scaling | None = None
    #: What is looked at, where that is not everything.
    coverage: Coverage | None = None
    #: Regions of interest in pixels of the slide, and tissue in pixels of ``reader``, where given.
    regions: Polygons | None = None
    tissue: Tissue | None = None
    #: The regions by their names.
    named: NamedRegions | None = None
    #: What is measured beyond shape and brightness.
    measures: Measures = field(default_factory=Measures)
    #: How far cells reach from their nuclei, in pixels of ``reader``; ``None``: nuclei only.
    distance: float | None = None
    #: How overlapping tiles are joined.
    blend: Blend = "none"
    #: Damaged tiles that were read as zero, where others have read the slide too.
    damaged: tuple[str, ...] | None = None

    @property
    def covered(self) -> Coverage:
        """Which tiles are computed."""
        covered = self.coverage or Coverage.of(self.grid)
        # Where tiles are averaged, each needs its neighbours.
        return covered if self.blend == "none" else covered.everywhere()

    @property
    def slide(self) -> SlideReader:
        """The slide at full resolution, in whose pixels all results are."""
        return self.unscaled or self.reader

    @property
    def bad_blocks(self) -> tuple[str, ...]:
        """Damaged tiles of the slide that were read as zero."""
        return self.slide.bad_blocks if self.damaged is None else self.damaged

    @property
    def to_full_resolution(self) -> FullResolution | None:
        """How strips become strips of the slide, where the reader shows it at another scale."""
        if self.unscaled is None:
            return None
        return FullResolution(
            self.reader.height, self.reader.width, self.unscaled.height, self.unscaled.width
        )

"""What a run was: the typed content of ``run.json``.

A record says what was made from what, how, and how long it took. :meth:`RunRecord.identity` is the part
that ``--resume`` compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import OutputError
from ..model.spec import CellDiameter, Record, SplitSettings, complaint
from .identity import Identity, Source

#: Version of the record; a reader refuses newer ones, and what has none.
FORMAT = 1


class _Format(BaseModel):
    """The version of a record, whatever else it holds."""

    model_config = ConfigDict(frozen=True)

    format: int | None = None


class ImageRecord(Record):
    """The image, in full-resolution pixels."""

    #: As it was given.
    path: str
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: str
    #: Micrometres a pixel, where known.
    pixel_size_um: float | None
    #: Damaged tiles that were read as zero.
    bad_blocks: tuple[str, ...] = ()
    #: What tells this state of the image from another.
    source: Source


class ModelRecord(Record):
    """The model, as its specification says."""

    name: str
    architecture: str
    heads: tuple[str, ...]
    precision: str
    weights_sha256: str


class EngineRecord(Record):
    """What ran the model."""

    name: str
    device: str
    #: In which it computed, for example ``bf16``.
    precision: str
    description: str


class SettingsRecord(Record):
    """What was decided before the first tile."""

    tile: int
    halo: int
    batch: int
    useful_fraction: float
    blend: str
    #: Height and width at which the model saw the image, where that is another size.
    scaled_to: tuple[int, int] | None
    #: Raw values that became 0 and 255.
    black: float
    white: float
    input_channels: tuple[int, ...]
    workers: int
    #: How planes became cells, the smallest score as the user wanted it.
    split: SplitSettings


class LookRecord(Record):
    """What the model saw in a slide at one scale, when it looked for the size of its cells."""

    #: Pixels that were seen for each pixel of the slide, along a side.
    scale: float
    fields: int
    cells: int
    #: Their sum, and the diameter in pixels of the slide that half of them lie below.
    votes: float
    diameter: float | None
    #: Cells to expect in a megapixel of the image, by their scores; runs of earlier versions have none.
    density: float | None = None


class SizingRecord(Record):
    """Why the image was read at its scale: see :class:`~cellseg.runtime.sizing.scale.Scaling`."""

    reason: str
    factor: float
    #: Of the image's cells, in its pixels, where given or found.
    diameter: float | None = None
    #: Of the cells that the model knows.
    model: CellDiameter | None = None
    #: Where it was looked for: votes for it, their part of all, and the scales that support it.
    votes: float | None = None
    agreement: float | None = None
    scales: tuple[float, ...] = ()
    looks: tuple[LookRecord, ...] = ()
    #: Pixels that the engine computed for that.
    pixels: int = 0


class StainsRecord(Record):
    """Whose optical densities were measured: see :class:`~cellseg.runtime.intensity.stains.Stains`."""

    #: ``he``, ``hdab``, or the file they come from.
    kind: str
    names: tuple[str, ...]
    #: Optical densities of each in red, green and blue.
    vectors: tuple[tuple[float, float, float], ...]
    #: Value of red, green and blue without stain; ``None``: the highest of the type.
    background: tuple[float, float, float] | None = None
    #: Whether the vectors were found in the slide.
    estimated: bool = False


class ClassesRecord(Record):
    """Cells by class."""

    #: Cells of each class, from negative up.
    counts: dict[str, int]
    #: Share of those that are not negative, 0…1; ``None`` of no cells.
    positive_share: float | None
    #: 0…300, where 1+, 2+ and 3+ are told apart.
    h_score: float | None = None


class RegionRecord(Record):
    """What was found in a region of interest: all polygons of one name."""

    name: str
    polygons: int
    #: Pixels of the image whose centre lies inside.
    pixels: int
    #: Cells whose centroid lies inside, also of smaller regions in it.
    cells: int
    #: Not where no pixel of the image lies inside.
    cells_per_megapixel: float | None
    #: Where the scale is known.
    cells_per_mm2: float | None
    #: Its cells by class, where they are told positive.
    positive: ClassesRecord | None = None


class FocusRecord(Record):
    """Where was looked."""

    #: File of the regions of interest, and how many polygons it holds.
    roi: str | None
    regions: int
    by_name: tuple[RegionRecord, ...] = ()
    tissue_part: float | None
    looked_at_part: float
    tiles_skipped: int
    skipped_part: float


class CountsRecord(Record):
    """What was found."""

    cells: int
    components: int
    dropped: int
    holes_filled: int
    cut_components: int
    tiles: int


class SecondsRecord(Record):
    """Seconds to open image and model, to run, and to finish the files."""

    open: float
    run: float
    finish: float
    total: float


class StageRecord(Record):
    """Seconds of a stage."""

    busy: float
    wait: float


class FileRecord(Record):
    """A file of a folder of results."""

    #: Relative to the folder, with ``/`` between parts.
    path: str
    bytes: int
    sha256: str


class PositiveRecord(ClassesRecord):
    """How cells were told positive, and how many are: see :mod:`cellseg.runtime.intensity.classes`."""

    marker: str
    #: ``nucleus``, ``ring`` or ``cell``.
    part: str
    thresholds: tuple[float, ...]
    #: Cells without a class: they have no ring, or their mean is no number.
    unclassified: int


class RunRecord(Record):
    """All that is known about a run."""

    format: int = FORMAT
    #: When it ended, in UTC.
    created: str
    image: ImageRecord
    model: ModelRecord
    engine: EngineRecord
    #: What the user asked for: see :class:`~cellseg.runtime.options.SegmentOptions`.
    options: dict[str, Any]
    settings: SettingsRecord
    sizing: SizingRecord = SizingRecord(reason="alone", factor=1.0)
    #: Where stains were measured.
    stains: StainsRecord | None = None
    #: How far nuclei were grown into cells, in µm.
    expand_um: float | None = None
    #: Where cells were told positive.
    positive: PositiveRecord | None = None
    focus: FocusRecord
    counts: CountsRecord
    seconds: SecondsRecord
    stages: dict[str, StageRecord]
    #: Pixels whose planes an earlier run had left.
    resumed_pixels: int
    mpx_s: float
    #: The stage that was busy longest.
    bottleneck: str
    #: What the user should know.
    notes: tuple[str, ...]
    #: Those of them that say why the cells may not be right.
    doubts: tuple[str, ...] = ()
    versions: dict[str, str]
    #: The other files of the folder, where there is one.
    files: tuple[FileRecord, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """Return a part as ``run.json`` has it, for those who index into what they read there.

        ``record["image"]["width"]`` is ``record.image.width``.
        """
        return self.to_dict()[name]

    def identity(self) -> Identity:
        """Return what the results depend on."""
        return Identity(
            source=self.image.source,
            model=self.model.name,
            weights=self.model.weights_sha256,
            precision=self.engine.precision,
            halo=self.settings.halo,
            tile=self.settings.tile,
            split=self.settings.split,
            diameter=self.sizing.model,
            options=self.options,
            damaged=bool(self.image.bad_blocks),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str, source: Path | str) -> RunRecord:
        """Parse and check a record.

        Parameters
        ----------
        text
            JSON as written by :meth:`to_json`.
        source
            The file it came from, for messages.

        Raises
        ------
        OutputError
            The text is not such a record, or is of another format.
        """
        try:
            # First of all: what else another format holds would be blamed in its place.
            found = _Format.model_validate_json(text).format
        except ValidationError:
            raise OutputError(f"{source}: is no record of a run; was it written by cellseg-infer?") from None
        if found is None:
            raise OutputError(
                f"{source}: was written by a release before 0.2, or by another program, and does not say "
                "what its results were made from"
            )
        if not 1 <= found <= FORMAT:
            raise OutputError(
                f"{source}: has format {found}, and this release reads 1 to {FORMAT}; read it with the "
                "release of cellseg that wrote it, or a newer one"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise OutputError(f"{source}: is damaged: {complaint(error)}") from None

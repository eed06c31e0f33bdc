"""What a model promises the runtime.

A :class:`ModelSpec` rides as JSON in the ONNX metadata (key :data:`METADATA_KEY`) and in the sidecar
``m.plan.json`` next to a TensorRT plan. It knows nothing of how a model was trained or is run.

The graph's contract is fixed, so that one runtime serves every model:

* input ``image``: uint8, shape (N, H, W, C), already mapped to the full 0…255 range by the
  per-slide lookup of :mod:`cellseg.runtime.intensity.normalization`; H and W are multiples of ``multiple``;
* output ``planes``: uint8, shape (N, K, H, W), one plane for each of ``heads`` in that order.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import ModelError, UsageError

#: Key of the specification in the ONNX ``metadata_props``.
METADATA_KEY = "cellseg.spec"
#: Name of the graph's only input and only output.
INPUT_NAME, OUTPUT_NAME = "image", "planes"
#: Version of this record; a reader refuses any other by its number.
FORMAT = 1

Byte = Annotated[int, Field(ge=0, le=255)]
HeadName = Literal["mask", "boundary", "density"]
#: All heads, in the order of the exported planes and of the splitting kernel.
HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)


class Record(BaseModel):
    """A frozen record that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Format(BaseModel):
    """The version of a record, whatever else it holds."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: int = FORMAT

    @field_validator("format")
    @classmethod
    def _known(cls, found: int) -> int:
        if found != FORMAT:
            raise ValueError(f"found {found}, which this release does not read")
        return found


class Head(Record):
    """One output plane: ``value = full_scale * (byte / 255) ** power``.

    Probabilities have ``full_scale`` 1 and ``power`` 1. Density (cells per pixel) spans a hundredfold
    between small and large cells, so its byte is a square root: ``power`` 2.
    """

    name: HeadName
    full_scale: float = 1.0
    power: float = 1.0


class JoinRule(Record):
    """When two cells that touch are one, learned from pictures whose cells are known.

    They are joined where the sum of these terms, the log-odds of being one cell, is above 0. Terms of
    planes are weights of their mean byte / 255; sizes count by the natural logarithm of their pixels.
    """

    constant: float
    #: By plane, over the pixels on both sides of the contact.
    contact: dict[HeadName, float]
    #: By plane, over both cells.
    inside: dict[HeadName, float]
    #: Areas of the smaller and the larger one.
    smaller: float
    larger: float
    #: Pairs of direct neighbours, one in each.
    length: float


class ScoreRule(Record):
    """How sure a cell is, learned from pictures whose cells are known.

    The sum of these terms is the log-odds that a true cell has an IoU of at least 0.5 with it; terms are
    as in :class:`JoinRule`. Its probability is the cell's ``score``.
    """

    constant: float
    inside: dict[HeadName, float]
    area: float
    #: Cells of a lower score are dropped.
    minimum: float = Field(ge=0.0, le=1.0)


class SplitSettings(Record):
    """How planes become cells; tuned on validation data and shipped with the model.

    The landscape that is flooded is ``mask * (1 - boundary_weight * boundary / 255) * (1 -
    density_weight * (1 - d)) + distance_weight * distance``, where ``d`` grows with the density plane,
    see :attr:`density_weight`. Where the model has neither plane, it is the distance to the background
    alone, in quarter pixels.
    """

    #: Foreground is ``mask >= mask_threshold`` (byte).
    mask_threshold: Byte = 128
    #: Weight of the boundary plane in the landscape, 0…1.
    boundary_weight: float = Field(default=1.0, ge=0.0, le=1.0)
    #: Weight of the density plane in the landscape, 0…1: ``d`` is the fourth root of the density over 0.1
    #: cells a pixel (the peak of a cell of 2.5 pixels radius), at most 1. The root makes the peaks of
    #: small and large cells alike.
    density_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Levels that the landscape rises for each pixel of distance to the background, up to 255 in all:
    #: separates cells by their outline where the network saw no boundary between them.
    distance_weight: float = Field(default=0.0, ge=0.0, le=64.0)
    #: Standard deviation in pixels of the Gaussian that smooths the landscape; 0 for none.
    smoothing: float = Field(default=1.0, ge=0.0, le=8.0)
    #: Two peaks belong to one cell when the pass between them lies less than this below the lower
    #: peak (bytes of the landscape; with the distance transform, quarter pixels).
    persistence: Byte = 24
    #: A basin of fewer pixels above its pass joins its neighbour, whatever its depth.
    min_seed_area: int = Field(default=8, ge=1)
    #: Cells of fewer pixels are dropped.
    min_area: int = Field(default=20, ge=1)
    #: Background holes inside a component of up to this many pixels are filled.
    max_hole_area: int = Field(default=64, ge=0)
    #: Two basins join when the lower one holds less than this many cells by the density plane
    #: (cells; ignored without that plane; 0 switches the rule off).
    min_seed_density: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Joins what the flood has left apart; ``None``: nothing.
    join: JoinRule | None = None
    #: Scores cells and drops doubtful ones; ``None``: none, the score is the mean probability.
    score: ScoreRule | None = None

    @property
    def weighed(self) -> frozenset[HeadName]:
        """The planes that the rules look at."""
        tables = [self.join.contact, self.join.inside] if self.join else []
        tables += [self.score.inside] if self.score else []
        return frozenset(name for table in tables for name in table)

    @classmethod
    def suited(cls, heads: Collection[str]) -> Self:
        """Return settings that suit a model with these heads, where nothing has been tuned for it.

        They are what ``cellseg-tune`` finds for the default model, rounded. Sizes are in
        pixels, for cells of about 5 to 70 pixels across.
        """
        own: dict[str, float] = {"smoothing": 1.2, "persistence": 3, "min_seed_area": 1}
        if "boundary" in heads:
            own = {"distance_weight": 12, "smoothing": 2.8, "persistence": 20, "min_seed_area": 4}
            if "density" in heads:
                own = {"density_weight": 1, "boundary_weight": 0.55, "smoothing": 2, "persistence": 13}
                own |= {"mask_threshold": 140, "min_seed_area": 10, "min_seed_density": 0.3}
        common = {"mask_threshold": 186, "min_area": 32, "max_hole_area": 30}
        return cls.model_validate(common | own)


class CellDiameter(Record):
    """How large the cells are that a model knows: diameters of circles of their area, in its pixels."""

    #: Of half of the cells it was trained on; the size to which others are brought.
    median: float = Field(gt=0.0, allow_inf_nan=False)
    #: The range in which it is as good as elsewhere, so that pictures whose cells are about so large
    #: are read as they are.
    low: float = Field(gt=0.0, allow_inf_nan=False)
    high: float = Field(gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(
                f"wanted low ≤ median ≤ high, found {self.low:g}, {self.median:g}, {self.high:g}"
            )
        return self


class ModelSpec(Record):
    """Everything the runtime needs to know about a model."""

    format: int = FORMAT
    #: Short name, for example ``nuclei``.
    name: str
    #: Network as named in the training configuration, for example ``MCUNET``.
    architecture: str
    #: Input channels: 1 or 3.
    channels: Literal[1, 3]
    #: How the slide is mapped to bytes before the graph: see :mod:`cellseg.runtime.intensity.normalization`.
    normalization: Literal["percentile", "none"] = "percentile"
    heads: tuple[Head, ...]
    #: Height and width of a tile must be multiples of this (two to the power of the depth).
    multiple: int = Field(ge=1)
    #: Pixels a side that a tile must see beyond its core; a multiple of ``multiple``; measured.
    halo: int = Field(ge=0)
    #: Theoretical receptive field, pixels a side.
    receptive_field: int = Field(ge=0)
    #: Preferred tile edge (halo included) and batch size.
    tile: int = Field(default=512, ge=16)
    batch: int = Field(default=4, ge=1)
    #: Micrometres a pixel of the training data; ``None`` where it is not known.
    pixel_size: float | None = None
    #: How large the cells it was trained on are; ``None`` where it is not known.
    diameter: CellDiameter | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    #: Arithmetic in which its planes were found to differ too much from the trained network's: no engine
    #: chooses it by itself.
    unfit: tuple[Literal["bf16"], ...] = ()
    split: SplitSettings = SplitSettings()
    #: SHA-256 of the weights (names and bytes of every initializer): the identity of a model in reports
    #: and in cells' ids. It is not what finds damage: that is the seal of :mod:`.onnx_metadata`.
    weights_sha256: str = ""
    #: Versions, checkpoint and command that made the file.
    provenance: dict[str, str] = {}
    #: Parity with PyTorch as measured at export: measure → value; ``passed`` is 0 or 1.
    parity: dict[str, float] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [head.name for head in self.heads]
        if names[:1] != ["mask"] or len(set(names)) != len(names):
            raise ValueError(f"heads must start with 'mask' and be unique, found {names}")
        if not self.split.weighed <= set(names):
            lacking = ", ".join(sorted(self.split.weighed - set(names)))
            raise ValueError(f"its rules for joining and scoring cells weigh {lacking}, which it has not")
        for field in ("halo", "tile"):
            if getattr(self, field) % self.multiple:
                raise ValueError(f"{field} {getattr(self, field)} is not a multiple of {self.multiple}")
        if self.tile <= 2 * self.halo:
            raise ValueError(f"tile {self.tile} leaves no core inside a halo of {self.halo}")
        return self

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the output planes, in the order of the graph."""
        return tuple(head.name for head in self.heads)

    def split_at(self, min_score: float | None) -> SplitSettings:
        """Return how planes become cells, with another smallest score than the model's where one is given.

        Raises
        ------
        UsageError
            One is given, and the model does not score cells.
        """
        if min_score is None:
            return self.split
        if self.split.score is None:
            raise UsageError(
                f"model '{self.name}' has not learned to score cells; cellseg-tune teaches it from "
                "pictures with known cells"
            )
        rule = self.split.score.model_copy(update={"minimum": float(min_score)})
        return self.split.model_copy(update={"score": rule})

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelSpec:
        """Parse and check a record.

        Parameters
        ----------
        text
            JSON as written by :meth:`to_json`.
        source
            The file it came from, for messages.

        Raises
        ------
        ModelError
            The text is not such a record, or is of another format.
        """
        try:
            # First of all: what else another format holds would be blamed in its place.
            Format.model_validate_json(text)
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(
                f"{source}: its cellseg specification does not fit this release (format {FORMAT}): "
                f"{complaint(error)}; export the model again with this release of cellseg-export"
            ) from None


def complaint(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record: which field, and what."""
    first: Any = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where or 'record'}: {first['msg'].removeprefix('Value error, ')}"

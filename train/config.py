"""The training configuration: every key of the original project, and ours, checked before anything runs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cellseg.runtime.common.bounded import brief, plain, read_bytes
from cellseg.runtime.errors import ConfigError
from cellseg.runtime.model.spec import HeadName

#: Bytes of a configuration; its levels of nesting, and its values where every alias is written out.
LONGEST, DEEPEST, MOST_VALUES = 1 << 20, 16, 100_000

ModelName = Literal[
    "MCUNET",
    "UNET",
    "RESUNET",
    "Res50EncodeUNet",
    "RES101EncodeUNet",
    "VGGEncodeUnet",
    "MCVGGEncodeUnet",
    "LinkNet",
    "MCLinkNet",
]
#: Strict, so that `true` is no number.
Count = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Positive = Annotated[int, Field(ge=1, le=10**12, strict=True)]
Weight = Annotated[float, Field(ge=0.0)]


class DataShare(BaseModel):
    """One of several data sets, and how often its pictures are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    #: In proportion to the others' shares; 0 leaves its training images out.
    share: float = Field(default=1.0, ge=0.0, lt=float("inf"))


class TrainConfig(BaseModel):
    """One training run. Keys in the first block are the original project's, with its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    model: ModelName = "MCUNET"
    in_channels: Literal[1, 3] = 3
    #: Classes of the semantic head: 2 is background and cell.
    out_channels: Literal[1, 2] = 2
    batch_size: Positive = 8
    learning_rate: float = Field(default=1e-3, gt=0.0)
    epochs: Positive = 400
    #: Optimiser steps at most; training ends at whichever of `epochs` and `iters` comes first.
    iters: Positive = 100_000
    #: Validations (one an epoch unless `val_interval` says otherwise) without a better score before
    #: training stops; half-way there the learning rate falls to a tenth.
    patience: Positive = 20
    #: Upsample bilinearly instead of by transposed convolution.
    interpolate: bool = False
    #: One sigmoid map for the cell class instead of a softmax over two.
    final_sigmoid: bool = False
    #: Continue where this run (true), or another one (path of its checkpoint), stopped.
    resume: bool | str = False
    #: Weight of the boundary loss; 0 removes the head.
    use_corner: Weight = 0.15
    #: Weight of the density loss; 0 removes the head.
    use_density: Weight = 0.0
    randseed: Count = 0
    model_deep: int = Field(default=3, ge=1, le=5, strict=True)
    M_channel: Literal[2, 3] = 3
    #: Re-split training and validation images in memory, by `randseed`; no file is moved.
    resample: bool = False
    #: Validation images in a re-split.
    resample_num: Positive = 1
    #: Names of the validation images in a re-split by hand, or a file with one name a line.
    resample_by_manual: list[str | int] | str | Literal[False] = False
    weight_decay: Weight = 1e-4
    init_channel_number: Positive = 64
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    M_R: Literal[0, 1] = 0
    #: Folder with train/ and val/, each holding image/, label/ and optionally corner/ and density/, or a
    #: list of such folders, each alone or as ``{path: FOLDER, share: NUMBER}``. One of them needs a val/.
    dataset_path: str | list[str | DataShare] = "datasets/cells"
    #: Folder of the run; ``work_dirs/<configuration's name>`` where it is not given.
    work_dir: str | None = None
    #: Folder for label images of the validation images, predicted at the end; empty for none.
    pred_result: str = ""

    # -- ours -------------------------------------------------------------------------------
    #: Names or numbers of the channels to read, as ``--channels`` of the other commands; by default all,
    #: which must be one, or the three of a colour picture.
    channels: list[str | int] | None = None
    #: Network to start from (fine-tuning): a checkpoint, an exported model, or a packaged one by its name;
    #: of this width, or narrower. Steps, optimiser, schedule and heads that it lacks start from scratch.
    weights: str | None = None
    #: Largest share that ``weights`` may keep in what is saved: the mean of the weights that training came to
    #: and of those it started from, as far as the validation images take no harm; 0 for none.
    keep: float = Field(default=0.0, ge=0.0, lt=1.0)
    #: Heads to build, mask first; by default the mask and every head whose loss has a weight.
    heads: tuple[HeadName, ...] = ()
    #: A head for each loss, as the paper has it; without, all losses act on the mask's own output, as in the
    #: method's released code.
    separate_heads: bool = True
    norm: Literal["batch", "group"] = "batch"
    #: Edge of the square training crops, pixels.
    crop: Positive = 256
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["plateau", "cosine"] = "plateau"
    #: Steps of linear warm-up.
    warmup: Count = 0
    #: Decay of the exponential moving average of the weights; 0 for none.
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    #: Steps between validations; 0 for once an epoch.
    val_interval: Count = 0
    #: What makes a checkpoint the best: the mean average precision of the cells at IoU 0.50…0.90, the
    #: pooled Dice of the mask (as the original has it), or the validation loss.
    best_by: Literal["ap", "dice", "loss"] = "ap"
    #: Validations between pictures of predictions; 0 for none.
    overlay_interval: Count = 5
    #: Width in pixels of the boundary band on either side of a cell's edge.
    boundary_width: Positive = 1
    #: Where the boundary lies: around every cell, as the paper has it, or only where two cells touch.
    boundary_at: Literal["edges", "contacts"] = "edges"
    #: Density sigma as a share of the cell's equivalent radius; `density_sigma` fixes it in pixels.
    density_spread: float = Field(default=0.5, gt=0.0)
    density_sigma: float | None = Field(default=None, gt=0.0)
    #: A round Gaussian for every cell, or an ellipse as long, wide and turned as the cell.
    density_shape: Literal["round", "ellipse"] = "round"
    #: Power of the density whose squared error is the loss: 1 is the paper's, 0.5 lets large cells count
    #: as much as small ones.
    density_power: float = Field(default=1.0, gt=0.0, le=1.0)
    #: Extra weight of pixels where two cells touch, in mask and boundary loss.
    touch_weight: Weight = 0.0
    #: Extra weight of pixels in and near small cells there, all of it up to 100 pixels of area, a tenth at
    #: 1,000.
    small_weight: Weight = 0.0
    #: Weight of the Dice term, added to cross-entropy.
    dice_weight: Weight = 1.0
    #: How evenly kinds of picture (dark, bright grey, coloured) are drawn: 0 as they come, 1 alike.
    balance: float = Field(default=0.0, ge=0.0, le=1.0)
    #: How often crowded images are drawn: 0 like any other, 1 in proportion to their cells.
    crowding: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Strength of photometric and geometric augmentation; 0 switches it off, flips apart.
    augment: float = Field(default=1.0, ge=0.0, le=2.0)
    #: The same for pictures with a bright ground, whose stains differ more from laboratory to laboratory
    #: than fluorescence does; none takes ``augment``.
    augment_bright: float | None = Field(default=None, ge=0.0, le=2.0)
    #: Share of crops that, where they are fluorescence and the network has three channels, are rendered
    #: as stained tissue.
    stained: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Share of crops of fluorescence of three channels that are redrawn as sections: their nuclei in
    #: immunostained tissue or in H&E, of other sizes and shapes, among things that are no nuclei.
    tissue: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Crops are enlarged and shrunk by up to this factor, beyond what ``augment`` does; 1 for not at all.
    zoom: float = Field(default=1.0, ge=1.0, le=8.0)
    #: How far the colours and amounts of the stains of pictures with a bright ground move; 0: not at all.
    stain_jitter: float = Field(default=0.0, ge=0.0, le=2.0)
    #: Label of pixels of which nothing is known: they count in no loss.
    ignore_label: Positive | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    #: Processes that cut crops; by default as many as there are cores besides the one that trains, at
    #: most 8.
    workers: Count | None = None

    @field_validator("channels", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | int) else value

    @field_validator("resume", "resample_by_manual", mode="before")
    @classmethod
    def _no_value(cls, value: Any) -> Any:
        return False if value is None or value == "" else value  # the original writes `resume: null`

    @field_validator("dataset_path", mode="before")
    @classmethod
    def _data_sets(cls, value: Any) -> Any:
        if isinstance(value, list):
            if not value:
                raise ValueError("the list is empty; wanted a folder, or several")
            for each in value:
                if not isinstance(each, str | dict | DataShare):
                    raise ValueError(f"{each!r} is neither a folder nor {{path: FOLDER, share: NUMBER}}")
        return value

    @field_validator("dataset_path")
    @classmethod
    def _drawn(cls, value: str | list[str | DataShare]) -> str | list[str | DataShare]:
        if not isinstance(value, str) and not sum(each.share for each in _with_shares(value)):
            raise ValueError("the shares sum to nothing; give one folder a share above 0")
        return value

    @field_validator("pred_result", mode="before")
    @classmethod
    def _no_folder(cls, value: Any) -> Any:
        return value or ""

    @model_validator(mode="before")
    @classmethod
    def _choose_heads(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("heads"):
            defaults = {name: cls.model_fields[name].default for name in WEIGHTS.values()}
            heads = [head for head, name in WEIGHTS.items() if _positive({**defaults, **values}[name])]
            values = {**values, "heads": ["mask", *heads]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads[0] != "mask" or len(set(self.heads)) != len(self.heads):
            raise ValueError(f"heads must start with mask and be unique, found {', '.join(self.heads)}")
        for head in self.heads[1:]:
            if not getattr(self, WEIGHTS[head]):
                raise ValueError(f"head {head} would learn nothing with {WEIGHTS[head]}: 0; give it a weight")
        if self.tissue and self.in_channels != 3:
            raise ValueError("tissue draws pictures in colour; set in_channels: 3, or tissue: 0")
        if self.crop % 2**self.model_deep:
            raise ValueError(
                f"crop {self.crop} must be a multiple of {2**self.model_deep}, two to the power of model_deep"
            )
        return self

    @property
    def outputs(self) -> tuple[HeadName, ...]:
        """The heads that the network has: all, or the mask's alone where it serves every loss."""
        return self.heads if self.separate_heads else self.heads[:1]

    @property
    def data_sets(self) -> list[DataShare]:
        """The folders of ``dataset_path`` and their shares."""
        return _with_shares(self.dataset_path)


def _with_shares(value: str | list[str | DataShare]) -> list[DataShare]:
    several = [value] if isinstance(value, str) else value
    return [DataShare(path=each) if isinstance(each, str) else each for each in several]


#: The loss weight that belongs to each auxiliary head.
WEIGHTS = {"boundary": "use_corner", "density": "use_density"}


def _positive(value: Any) -> bool:
    """Whether a raw value is a positive number; anything else is reported by the field itself."""
    try:
        return float(value) > 0
    except (TypeError, ValueError, OverflowError):
        return False


def parse(values: dict[str, Any], source: str) -> TrainConfig:
    """Check `values` and return the configuration.

    Raises
    ------
    ConfigError
        Names the first wrong key, what was found, what is wanted and, for an unknown key, the nearest
        known one.
    """
    for key in values:
        if key not in TrainConfig.model_fields:
            near = difflib.get_close_matches(str(key), TrainConfig.model_fields, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            name = key if isinstance(key, str) and len(key) <= 80 else brief(key)
            raise ConfigError(f"{source}: unknown key '{name}'{hint}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        if first["loc"]:  # a union adds the name of its branch, which says nothing to a user
            text = f"{first['loc'][0]}: found {brief(first['input'])}; {text}"
        raise ConfigError(f"{source}: {text}") from None


def load(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides (values in YAML syntax).

    Raises
    ------
    ConfigError
        The file cannot be read, or :func:`parse` refuses it.
    """
    try:
        values = read_yaml(read_bytes(path, LONGEST).decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {plain(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, wanted `key: value` lines")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override}: wanted key=value")
        try:
            values[key.strip()] = read_yaml(text)
        except ValueError as error:
            given = override if len(override) <= 80 else f"{override[:77]}…"
            raise ConfigError(f"--set {given}: the value is no YAML: {plain(error)}") from None
    return parse(values, str(path))


def read_yaml(text: str) -> Any:
    """Parse YAML from strangers.

    Raises
    ------
    ValueError
        It is no YAML, nested too deeply, or a few aliases in it stand for very many values.
    """
    import yaml

    try:
        _weigh(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # What its constructors raise on dates, numbers and tags that are none.
        raise ValueError(f"a value is not what its form or tag says ({error})") from None


def _weigh(text: str) -> None:
    """Go through the events of a text, which takes no memory, and refuse what would unfold to too much."""
    import yaml

    anchors: dict[str, int] = {}
    # Name and values of each list or table that is open, the innermost last.
    levels: list[tuple[str | None, int]] = [(None, 0)]

    def add(count: int) -> None:
        levels[-1] = levels[-1][0], levels[-1][1] + count
        if levels[-1][1] > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES:,} values")

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(levels) > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
            levels.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, count = levels.pop()
            if anchor is not None:
                anchors[anchor] = count
            add(count)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                anchors[event.anchor] = 1
            add(1)
        elif isinstance(event, yaml.AliasEvent):
            add(anchors.get(event.anchor or "", 1))

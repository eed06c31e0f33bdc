"""The training configuration: every key of the original project, and ours, checked before anything runs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellseg.runtime.errors import ConfigError

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
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]


class TrainConfig(BaseModel):
    """One training run. Keys in the first block are the original project's, with its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelName = "MCUNET"
    in_channels: Literal[1, 3] = 3
    #: Classes of the semantic head: 2 is background and cell.
    out_channels: Literal[1, 2] = 2
    batch_size: Positive = 8
    learning_rate: float = Field(default=1e-3, gt=0.0)
    epochs: Positive = 400
    #: Optimiser steps at most; training ends at whichever of `epochs` and `iters` comes first.
    iters: Positive = 100_000
    #: Epochs without a better validation score before training stops; the rate decays at half of it.
    patience: Positive = 20
    #: Upsample bilinearly instead of by transposed convolution.
    interpolate: bool = False
    #: Sigmoid (one map per class) instead of softmax at the semantic output.
    final_sigmoid: bool = False
    #: Continue from `last` in the working folder where it exists.
    resume: bool = False
    #: Weight of the boundary loss; 0 removes the head.
    use_corner: Weight = 0.15
    #: Weight of the density loss; 0 removes the head.
    use_density: Weight = 0.0
    randseed: int = 0
    model_deep: int = Field(default=3, ge=1, le=5)
    M_channel: Literal[2, 3] = 3
    #: Re-split training and validation images in memory, seeded; no file is moved.
    resample: bool = False
    #: Validation images in a re-split.
    resample_num: Positive = 1
    #: File of validation image names (one a line) for a re-split by hand.
    resample_by_manual: str | None = None
    weight_decay: Weight = 1e-4
    init_channel_number: Positive = 64
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    M_R: Literal[0, 1] = 0
    #: Folder with train/ and val/, each holding image/, label/ and optionally corner/ and density/.
    dataset_path: str = "datasets/cells"
    work_dir: str = "work_dirs"
    #: Folder for predictions on the validation images; empty for none.
    pred_result: str = ""

    # -- ours -------------------------------------------------------------------------------
    norm: Literal["batch", "group"] = "batch"
    #: Edge of the square training crops, pixels.
    crop: Positive = 256
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["plateau", "cosine"] = "plateau"
    #: Steps of linear warm-up.
    warmup: int = Field(default=0, ge=0)
    #: Decay of the exponential moving average of the weights; 0 for none.
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    #: Steps between validations; 0 for once an epoch.
    val_interval: int = Field(default=0, ge=0)
    #: Width in pixels of the boundary band on either side of a cell's edge.
    boundary_width: Positive = 1
    #: Density sigma as a share of the cell's equivalent radius; `density_sigma` fixes it in pixels.
    density_spread: float = Field(default=0.5, gt=0.0)
    density_sigma: float | None = Field(default=None, gt=0.0)
    #: Extra weight of pixels where two cells touch, in mask and boundary loss.
    touch_weight: Weight = 0.0
    #: Weight of the Dice term beside cross-entropy.
    dice_weight: Weight = 1.0
    #: Strength of photometric and geometric augmentation; 0 switches it off, flips apart.
    augment: float = Field(default=1.0, ge=0.0, le=2.0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    workers: int = Field(default=1, ge=0)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads in the order of export."""
        auxiliary = {"boundary": self.use_corner, "density": self.use_density}
        return ("mask", *(name for name, weight in auxiliary.items() if weight > 0))


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
            raise ConfigError(f"{source}: unknown key '{key}'{hint}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{source}: {key}: found {first['input']!r}; {first['msg']}") from None


def load(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides (values in YAML syntax)."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as YAML: {line}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, wanted `key: value` lines")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override}: wanted key=value")
        values[key.strip()] = yaml.safe_load(text)
    return parse(values, str(path))

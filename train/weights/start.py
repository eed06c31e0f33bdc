"""What a network starts from: a checkpoint or an exported model, of its own width or narrower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cellseg.runtime.errors import ModelError
from cellseg.runtime.model.catalog import default_model, model_names
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import ModelSpec

from .. import checkpoint
from ..checkpoint import State
from ..config import TrainConfig
from ..models.nets import UNet
from .unfold import settle, unfold_norms
from .widen import can_widen, layout, widen

#: How the weights of a head are named, before its own name.
HEADS_PREFIX = "heads.heads."


def adopt(model: UNet, config: TrainConfig, images: Callable[[], Tensor]) -> list[str]:
    """Give `model` the weights that ``weights`` names; of a checkpoint, the averaged ones.

    Parameters
    ----------
    model
        Afterwards it computes, in evaluation mode, what the other network does, but for heads that are new.
    config
        What `model` was built from.
    images
        Returns training crops, float (N, C, H, W) in 0…1; called where an exported model's norms need
        statistics.

    Returns
    -------
    Names of the heads that the source does not have, or has in another width; they stay as they are.

    Raises
    ------
    ModelError
        It cannot be read, or its network is another one than width and heads account for.
    """
    source = config.weights or ""
    path = default_model(source) if source in model_names() else Path(source)
    exported = path.suffix == ".onnx"
    other, channels = _exported(path, model) if exported else _trained(path)
    unfolded = unfold_norms(model, other) if exported else []

    own = model.state_dict()
    fits = {name: value for name, value in other.items() if name in own and _fits(name, value, own[name])}
    missing = [name for name in own if name not in fits]
    strangers = ["in_channels"] if channels != config.in_channels else []
    strangers += [name for name in missing if not name.startswith(HEADS_PREFIX)]
    strangers += [name for name in other if name not in own and not name.startswith(HEADS_PREFIX)]
    if strangers:
        raise ModelError(
            f"{path}: its network is not the one that the configuration names ({strangers[0]} differs); "
            "set model, in_channels, model_deep, M_channel, M_R, norm and interpolate as its own "
            "configuration has them, and init_channel_number as it has it or larger"
        )
    wide = {name: widen(value, own[name].shape, *layout(name, model, config)) for name, value in fits.items()}
    model.load_state_dict(wide, strict=False)
    if unfolded:
        settle(model, unfolded, images())
    return sorted({name.removeprefix(HEADS_PREFIX).split(".")[0] for name in missing})


def _trained(path: Path) -> tuple[State, int]:
    """Return the weights of a checkpoint, and the channels of its input."""
    saved = checkpoint.load(path)
    return checkpoint.weights(saved), saved["config"]["in_channels"]


def _exported(path: Path, model: UNet) -> tuple[State, int]:
    """Return the weights of an exported model by their names in `model`, norms folded, and its channels."""
    spec = load_spec(path)
    if spec.architecture != model.name:
        raise ModelError(f"{path}: its network is {spec.architecture}, the configuration names {model.name}")
    if spec.precision == "int8":
        raise ModelError(f"{path}: is rounded to INT8; start from its checkpoint, or an FP32 or FP16 export")
    try:
        import onnx
    except ImportError:
        raise ModelError(f"{path}: an exported model is read with onnx; install cellseg[export]") from None
    state: State = {}
    for tensor in onnx.load(path).graph.initializer:
        # Parts of an FP16 export are wrapped, which shows in the names.
        prefix, _, name = tensor.name.replace(".part.", ".").partition(".")
        if prefix == "network":
            state[name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype("float32"))
    _part_heads(state, spec, model)
    return state, spec.channels


def _fits(name: str, value: Tensor, own: Tensor) -> bool:
    """Whether a weight can become `own`'s; a head keeps its number of maps."""
    return can_widen(value, own.shape) and not (name.startswith(HEADS_PREFIX) and len(value) != len(own))


def _part_heads(state: State, spec: ModelSpec, model: UNet) -> None:
    """Take the one convolution for all heads apart; a softmax's two maps get half their difference each."""
    own = model.state_dict()
    for kind in ("weight", "bias"):
        for head, row in zip(spec.head_names, state.pop(f"heads.{kind}"), strict=True):
            name = f"{HEADS_PREFIX}{head}.{kind}"
            state[name] = torch.stack((-row / 2, row / 2)) if len(own.get(name, ())) == 2 else row[None]

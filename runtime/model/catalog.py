"""The models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from ..common.spelling import option
from ..errors import ModelError, UsageError

#: Folder of the models inside the package.
MODELS = Path(__file__).parent / "packaged"
#: The model that is used where none is named.
DEFAULT = "nuclei"


def default_model(name: str = DEFAULT) -> Path:
    """Return the file of a packaged model.

    Raises
    ------
    UsageError
        There is no packaged model of that name; the message lists those there are.
    ModelError
        The default model is missing: the installation is incomplete.
    """
    path = MODELS / f"{name}.onnx"
    if path.is_file():
        return path
    if name == DEFAULT:
        raise ModelError(f"{path}: the default model is not in this installation; install cellseg again")
    names = ", ".join(model_names()) or "none"
    raise UsageError(
        f"no packaged model is called '{name}'; packaged: {names}; for a file say {option('model')} FILE"
    )


def model_names() -> list[str]:
    """Return the names of the packaged models; twins in eight bits, ``NAME.int8.onnx``, have none."""
    return sorted(path.stem for path in MODELS.glob("*.onnx") if not path.stem.endswith(".int8"))

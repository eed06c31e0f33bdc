"""A package for the bioimage.io model zoo: weights, description, and a tile with its planes to test with.

Written from the specification alone; it appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from cellseg.runtime.backends import Options, open_backend
from cellseg.runtime.common.files import replacing, write
from cellseg.runtime.errors import UsageError
from cellseg.runtime.intensity import normalization
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec

Bytes = NDArray[np.uint8]
#: Version of the bioimage.io model description that is written.
BIOIMAGEIO_FORMAT = "0.5.4"


def bioimageio(
    model: Path, package: Path, image: Bytes, *, authors: Sequence[str] = (), license_id: str = "Apache-2.0"
) -> Path:
    """Write a package for the bioimage.io ecosystem.

    Parameters
    ----------
    model
        An exported ONNX file.
    package
        The zip file to write.
    image
        A test picture, uint8 (T, T, C), T a multiple of the model's.
    authors
        Names; ``Unknown`` where there are none.
    license_id
        SPDX identifier of the model's licence.

    Raises
    ------
    UsageError
        The model is no ONNX file.
    OutputError
        The package cannot be written.
    """
    if model.suffix != ".onnx":
        raise UsageError(f"{model}: a bioimage.io package holds an ONNX model; name one")
    spec = load_spec(model)
    files = {
        "test_input.npy": _npy(image[None]),
        "test_output.npy": _npy(_expected(model, spec, image)),
        "weights.onnx": model.read_bytes(),
        "README.md": _readme(spec).encode(),
    }
    opset = onnx.load(model).opset_import[0].version
    description = describe(
        spec, opset, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    )
    description["authors"] = [{"name": name} for name in authors or ("Unknown",)]
    description["license"] = license_id
    files["rdf.yaml"] = yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with replacing(package) as partial:
        write(partial, buffer.getvalue())
    return package


def describe(spec: ModelSpec, opset: int, sha256: dict[str, str]) -> dict[str, Any]:
    """Return the content of ``rdf.yaml``, authors and licence apart.

    The mapping of the slide to bytes becomes preprocessing steps, that of bytes to probabilities a
    postprocessing step. A square-root byte (density) has no such step and stays a fraction of 255.
    """
    return {
        "type": "model",
        "format_version": BIOIMAGEIO_FORMAT,
        "name": f"cellseg {spec.name}",
        "description": f"{spec.architecture}: {', '.join(spec.head_names)} of cells, exported by cellseg",
        "documentation": "README.md",
        "tags": ["cell-segmentation", "semantic-segmentation", "2d", spec.architecture.lower()],
        "inputs": [_input(spec, sha256["test_input.npy"])],
        "outputs": [_output(spec, sha256["test_output.npy"])],
        "weights": {
            "onnx": {"source": "weights.onnx", "sha256": sha256["weights.onnx"], "opset_version": opset}
        },
        "config": {"cellseg": json.loads(spec.to_json())},
    }


def _input(spec: ModelSpec, sha256: str) -> dict[str, Any]:
    """Describe the tensor that goes in, and the steps from a slide's pixels to it."""
    least = -(-(2 * spec.halo + spec.multiple) // spec.multiple) * spec.multiple
    channels = ["red", "green", "blue"] if spec.channels == 3 else ["intensity"]
    steps: list[dict[str, Any]] = []
    if spec.normalization == "percentile":
        steps = [
            {
                "id": "scale_range",
                "kwargs": {
                    "axes": ["channel", "y", "x"],
                    "min_percentile": normalization.LOW_PERCENTILE,
                    "max_percentile": normalization.HIGH_PERCENTILE,
                },
            },
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
            # A half is added because the change of type cuts off.
            {"id": "scale_linear", "kwargs": {"gain": 255.0, "offset": 0.5}},
        ]
    return {
        "id": INPUT_NAME,
        "axes": [
            {"type": "batch"},
            *_space(spec, lambda _: {"size": {"min": least, "step": spec.multiple}}),
            {"type": "channel", "channel_names": channels},
        ],
        "data": {"type": "uint8"},
        "test_tensor": {"source": "test_input.npy", "sha256": sha256},
        "preprocessing": [*steps, {"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}],
    }


def _output(spec: ModelSpec, sha256: str) -> dict[str, Any]:
    """Describe the planes that come out, and the steps from bytes to fractions."""

    def same_as_input(axis: str) -> dict[str, Any]:
        return {"size": {"tensor_id": INPUT_NAME, "axis_id": axis}, "halo": spec.halo}

    return {
        "id": OUTPUT_NAME,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(spec.head_names)},
            *_space(spec, same_as_input),
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test_output.npy", "sha256": sha256},
        "postprocessing": [
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}},
        ],
    }


def _space(spec: ModelSpec, size: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe the axes y and x, with what `size` says of each and the pixels' size where it is known."""
    pixel = {} if spec.pixel_size is None else {"unit": "micrometer", "scale": spec.pixel_size}
    return [{"type": "space", "id": axis, **size(axis), **pixel} for axis in ("y", "x")]


def _expected(model: Path, spec: ModelSpec, image: Bytes) -> NDArray[np.float32]:
    """Return what the package's steps make of the picture: (1, K, T, T) float32 in 0…1."""
    normal = normalization.measure(image) if spec.normalization == "percentile" else None
    mapped = image if normal is None else normal.apply(image)
    with open_backend(model, "cpu", engine="openvino", options=Options(precision="fp32")) as backend:
        backend.prepare(image.shape[0], 1)
        planes = backend.submit(np.ascontiguousarray(mapped[None])).result()
    return planes.astype(np.float32) / np.float32(255)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _readme(spec: ModelSpec) -> str:
    heads = "\n".join(
        f"- `{head.name}`: value = {head.full_scale:g} · x^{head.power:g}, x in 0…1" for head in spec.heads
    )
    return (
        f"# cellseg {spec.name}\n\n{spec.architecture}, {spec.precision}, exported by cellseg-export.\n\n"
        f"Output channels:\n\n{heads}\n\nA tile must see {spec.halo} pixels beyond what is kept of it. "
        "Cells are split from these planes by cellseg-infer; the settings are in `config.cellseg.split`.\n\n"
        "# Validation\n\nEvery export is compared with the trained network; the figures are in "
        "`config.cellseg.parity`.\n"
    )

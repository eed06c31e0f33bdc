"""Other people's packages around the same graph: a Triton model repository, a bioimage.io model.

Both are written from the specification alone and appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from cellseg.runtime.backends import Options, open_backend
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.common.files import replacing, write
from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.intensity import normalization
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec

from .assemble import Exported
from .report import Say, line

Bytes = NDArray[np.uint8]
#: Version of the bioimage.io model description that is written.
BIOIMAGEIO_FORMAT = "0.5.4"
#: Largest batch that a server may form of an ONNX model; a plan has its own.
TRITON_BATCH = 8


def add_bundles(
    exported: Exported,
    plan: Path | None,
    say: Say,
    repository: Path | None,
    package: bool,
    authors: Sequence[str],
    license_id: str,
) -> None:
    """Write the packages that were asked for around an exported model, and tell where they are."""
    if repository is not None:
        served = plan if plan is not None and plans.load_record(plan).flavour == "tensorrt" else exported.path
        say(line("triton", f"{triton(served, repository)} (serves {served.name})"))
    if package:
        path = exported.path.with_suffix(".bioimageio.zip")
        bioimageio(exported.path, path, exported.images[0], authors=authors, license_id=license_id)
        say(line("bioimageio", f"{path} ({path.stat().st_size / 1e6:.2f} MB)"))


def triton(model: Path, repository: Path) -> Path:
    """Write a model repository for NVIDIA Triton.

    Parameters
    ----------
    model
        An exported ONNX file or a plan.
    repository
        Its folder; the model gets a folder of its own name in there.

    Returns
    -------
    Path
        The model's folder, with ``config.pbtxt`` and ``1/model.onnx`` or ``1/model.plan``.

    Raises
    ------
    UsageError
        The plan is one of TensorRT-RTX, which Triton does not run.
    OutputError
        That folder exists, or cannot be written.
    """
    is_plan = model.suffix == plans.SUFFIX
    record = plans.load_record(model) if is_plan else None
    if record is not None and record.flavour != "tensorrt":
        raise UsageError(
            f"{model}: Triton runs plans of TensorRT, this one is {record.title}; name the ONNX file"
        )
    spec = record.spec if record is not None else load_spec(model)
    if not spec.name or Path(spec.name).name != spec.name or spec.name.startswith("."):
        raise UsageError(
            f"{model}: model name '{spec.name}' cannot be a folder's; export it with another --name"
        )
    batch = record.profile.batch[2] if record is not None else max(TRITON_BATCH, spec.batch)
    target = repository / spec.name
    if target.exists():
        raise OutputError(f"{target}: exists already; remove it or name another repository")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=repository, prefix=f".{spec.name}-"))
    except OSError as error:
        raise OutputError(f"{repository}: cannot be written ({error.strerror}); name another place") from None
    try:
        partial.chmod(0o755)  # temporary folders are private, a server is another user
        (partial / "1").mkdir()
        write(partial / "1" / f"model{model.suffix}", model.read_bytes())
        write(partial / "config.pbtxt", triton_config(spec, batch, is_plan=is_plan).encode())
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def triton_config(spec: ModelSpec, batch: int, *, is_plan: bool) -> str:
    """Return the text of ``config.pbtxt``; the batch is Triton's, so it is not among the dimensions.

    No batch size is preferred: Triton then makes batches as large as there are requests, while it
    would never go beyond a preferred size of one. Source: its manual, "Dynamic Batcher".
    """
    platform = "tensorrt_plan" if is_plan else "onnxruntime_onnx"
    return f"""name: {_quoted(spec.name)}
platform: "{platform}"
max_batch_size: {batch}
input [
  {{
    name: "{INPUT_NAME}"
    data_type: TYPE_UINT8
    dims: [ -1, -1, {spec.channels} ]
  }}
]
output [
  {{
    name: "{OUTPUT_NAME}"
    data_type: TYPE_UINT8
    dims: [ {len(spec.heads)}, -1, -1 ]
  }}
]
dynamic_batching {{
}}
parameters {{
  key: "{METADATA_KEY}"
  value {{ string_value: {_quoted(json.dumps(json.loads(spec.to_json()), separators=(",", ":")))} }}
}}
"""


def _quoted(text: str) -> str:
    """Quote a string for protobuf's text format: ASCII, with octal escapes for other bytes."""
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{"".join(escaped)}"'


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
    least = -(-(2 * spec.halo + spec.multiple) // spec.multiple) * spec.multiple
    channels = ["red", "green", "blue"] if spec.channels == 3 else ["intensity"]
    space = [
        {"type": "space", "id": axis, "size": {"min": least, "step": spec.multiple}, **_scale(spec)}
        for axis in ("y", "x")
    ]
    seen = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": INPUT_NAME, "axis_id": axis},
            "halo": spec.halo,
            **_scale(spec),
        }
        for axis in ("y", "x")
    ]
    step = "channel", "y", "x"
    to_bytes: list[dict[str, Any]] = []
    if spec.normalization == "percentile":
        to_bytes = [
            {
                "id": "scale_range",
                "kwargs": {
                    "axes": list(step),
                    "min_percentile": normalization.LOW_PERCENTILE,
                    "max_percentile": normalization.HIGH_PERCENTILE,
                },
            },
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
            # A half is added because the change of type cuts off.
            {"id": "scale_linear", "kwargs": {"gain": 255.0, "offset": 0.5}},
        ]
    return {
        "type": "model",
        "format_version": BIOIMAGEIO_FORMAT,
        "name": f"cellseg {spec.name}",
        "description": f"{spec.architecture}: {', '.join(spec.head_names)} of cells, exported by cellseg",
        "documentation": "README.md",
        "tags": ["cell-segmentation", "semantic-segmentation", "2d", spec.architecture.lower()],
        "inputs": [
            {
                "id": INPUT_NAME,
                "axes": [
                    {"type": "batch"},
                    *space,
                    {"type": "channel", "channel_names": channels},
                ],
                "data": {"type": "uint8"},
                "test_tensor": {"source": "test_input.npy", "sha256": sha256["test_input.npy"]},
                "preprocessing": [*to_bytes, {"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT_NAME,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": list(spec.head_names)},
                    *seen,
                ],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_output.npy", "sha256": sha256["test_output.npy"]},
                "postprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}},
                ],
            }
        ],
        "weights": {
            "onnx": {"source": "weights.onnx", "sha256": sha256["weights.onnx"], "opset_version": opset}
        },
        "config": {"cellseg": json.loads(spec.to_json())},
    }


def _scale(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.pixel_size is None else {"unit": "micrometer", "scale": spec.pixel_size}


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

"""A model repository for NVIDIA Triton: a folder with its configuration and the graph or plan.

Written from the specification alone; it appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from cellseg.runtime.backends.trt import plans
from cellseg.runtime.common.files import write
from cellseg.runtime.errors import OutputError, UsageError
from cellseg.runtime.model.onnx_metadata import load_spec
from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec

#: Largest batch that a server may form of an ONNX model; a plan has its own.
TRITON_BATCH = 8


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

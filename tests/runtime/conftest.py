import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, Head, ModelSpec


def box_model(path: Path, *, spec: ModelSpec | None, extra: dict[str, str] | None = None) -> Path:
    """Write a model whose planes are whole numbers: the sum over 3 × 3 of channel 0, and channel 1 itself."""
    weights = np.zeros((2, 3, 3, 3), np.float32)
    weights[0, 0], weights[1, 1, 1, 1] = 1, 1
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "", "top"], ["k"]),
        helper.make_node("Cast", ["k"], [OUTPUT_NAME], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "box",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.float32(255), "top")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    metadata = dict(extra or {})
    if spec is not None:
        metadata[METADATA_KEY] = spec.to_json()
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def box_spec() -> ModelSpec:
    return ModelSpec(
        name="box",
        architecture="BOX",
        channels=3,
        heads=(Head(name="mask"), Head(name="boundary")),
        multiple=4,
        halo=4,
        receptive_field=1,
        tile=32,
        batch=2,
    )


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, box_spec: ModelSpec) -> Path:
    return box_model(tmp_path_factory.mktemp("models") / "box.onnx", spec=box_spec)


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    return box_model


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run an S3 of our own for the tests, to which AWS's variables point; the fixture is its address."""
    server_of = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """Return the address of a new bucket."""
    import boto3

    name = f"lab-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the temporary folder, which is the test's own."""
    made = tmp_path / "scratch"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.fixture(params=["memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty folder, in stores of several kinds."""
    pytest.importorskip("fsspec")
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/store"

"""Fixtures that every part of the test suite may use."""

import os
import signal
from pathlib import Path

import pytest

import cellseg.runtime  # noqa: F401  # first of all: it keeps the engines from reporting to their makers

REPOSITORY = Path(__file__).resolve().parent.parent

# Compiled models are kept between runs only where a test is about that.
os.environ["CELLSEG_CACHE"] = "off"

# A shell starts background jobs with SIGINT ignored, and all that they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data, or a skip: it is larger than a repository should be, and not all of it is ours."""
    folder = Path(os.environ.get("CELLSEG_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "dsb2018").is_dir():
        pytest.skip(f"no real data in {folder}: set CELLSEG_DATA to a folder that holds dsb2018/ and slides/")
    return folder


@pytest.fixture(scope="session")
def bright_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file for which cells are what is bright: ``mask`` is the mean of the channels.

    It stands in for a trained model where a test is about everything else.
    """
    # Imported here because most tests need neither package.
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from cellseg.runtime.model.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, Head, ModelSpec

    spec = ModelSpec(
        name="bright",
        architecture="MEAN",
        channels=3,
        heads=(Head(name="mask"),),
        multiple=8,
        halo=8,
        receptive_field=0,
        tile=64,
        batch=2,
    )
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "first"], ["plane"]),
        helper.make_node("Cast", ["plane"], [OUTPUT_NAME], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["n", 1, "h", "w"])],
        [numpy_helper.from_array(np.array([3]), "axes"), numpy_helper.from_array(np.array([1]), "first")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    path = tmp_path_factory.mktemp("models") / "bright.onnx"
    onnx.save(model, path)
    return path


#: Centres and radii of discs in a picture of 900 rows and 1200 columns, x and y.
DISCS = [(100, 90, 12), (400, 120, 20), (700, 600, 9), (50, 880, 15), (1180, 40, 11), (610, 610, 25)]


@pytest.fixture(scope="session")
def finished_views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two results of one picture, which lies next to them: :data:`DISCS` on a dark ground."""
    import cv2
    import numpy as np
    import tifffile

    from cellseg.runtime import segment
    from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

    place = tmp_path_factory.mktemp("view")
    picture = np.full((900, 1200), 10, np.uint8)
    for x, y, radius in DISCS:
        cv2.circle(picture, (x, y), radius, 230, -1)
    tifffile.imwrite(place / "discs.tif", picture)
    with LocalEngine(local_spec(1), 1) as engine:
        for name in ("first", "second"):
            segment(place / "discs.tif", engine, output=place / name, pixel_size=0.5, probabilities=True)
    return [place / "first", place / "second"]

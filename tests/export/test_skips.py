import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellseg.export import assemble
from cellseg.export.assemble import Exported
from cellseg.export.int8 import prune
from cellseg.export.skips import split_skips
from cellseg.export.tiles import generate
from cellseg.runtime.backends import Options


def sees_a_concatenation(model: onnx.ModelProto) -> list[str]:
    joined = {node.output[0] for node in model.graph.node if node.op_type == "Concat"}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[0] in joined]


def test_a_network_computes_the_same_without_concatenations(exported: Exported) -> None:
    model = onnx.load(exported.path)
    del model.metadata_props[:]
    assert len(sees_a_concatenation(model)) == 6  # two decoders of three branches
    split = split_skips(model)
    prune(split)
    onnx.checker.check_model(split, full_check=True)
    assert not sees_a_concatenation(split)
    sizes = [
        sum(np.prod(tensor.dims) for tensor in each.graph.initializer if len(tensor.dims) == 4)
        for each in (model, split)
    ]
    assert sizes[0] == sizes[1]
    images = np.stack([image for image, _ in generate(3, 64, 3)])
    exact = Options(precision="fp32")
    one, other = (assemble.run_graph(each, images, exact).astype(int) for each in (model, split))
    assert np.abs(one - other).max() <= 1
    assert (one != other).mean() < 1e-3


@pytest.mark.parametrize("parts", [2, 3])
def test_what_else_sees_it_still_does(parts: int) -> None:
    """Bias once, any number of parts, other readers, and convolutions that cannot be split."""
    rng = np.random.default_rng(0)
    names = [f"x{number}" for number in range(parts)]
    weight = rng.normal(size=(4, 2 * parts, 3, 3)).astype(np.float32)
    grouped = rng.normal(size=(2 * parts, 1, 3, 3)).astype(np.float32)
    nodes = [
        *(helper.make_node("Relu", [f"in{name}"], [name], f"relu {name}") for name in names),
        helper.make_node("Concat", names, ["cat"], "join", axis=1),
        helper.make_node("Conv", ["cat", "w", "b"], ["y"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["cat", "g"], ["z"], "grouped", pads=[1, 1, 1, 1], group=2 * parts),
        helper.make_node("Neg", ["cat"], ["n"], "negative"),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(f"in{name}", TensorProto.FLOAT, [1, 2, 8, 8]) for name in names],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8])
                for name, channels in (("y", 4), ("z", 2 * parts), ("n", 2 * parts))
            ],
            [
                numpy_helper.from_array(value, name)
                for name, value in (("w", weight), ("g", grouped), ("b", np.ones(4, np.float32)))
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    from onnx.reference import ReferenceEvaluator

    split = split_skips(model)
    onnx.checker.check_model(split)
    assert sees_a_concatenation(split) == ["grouped"]
    given = {f"in{name}": rng.normal(size=(1, 2, 8, 8)).astype(np.float32) for name in names}
    for one, other in zip(
        ReferenceEvaluator(model).run(None, given), ReferenceEvaluator(split).run(None, given), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

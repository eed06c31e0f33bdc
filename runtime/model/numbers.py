"""What a graph makes of numbers in the file alone, and of the sizes of its tensors, not of pixels.

Engines compute such parts when they open a model, to fold constants and to learn shapes, before anyone
can see how large they are: eleven hundred bytes (a ``Tile`` of a number, some additions, a
``ConstantOfShape``) keep one busy for minutes and take gigabytes. So they may only be made by
operators whose results are bounded by what goes in, and all of them together are bounded by the weights.
In the same way sizes may not come from pixels.

Knows operators by name; knows nothing of files. Source of the names:
https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

#: As many values as the first input has, at most; whatever else goes in says how.
_LIKE_FIRST = frozenset((
    "Abs", "ArgMax", "ArgMin", "Cast", "Ceil", "Clip", "CumSum", "DequantizeLinear",
    "Exp", "Flatten", "Floor", "Identity", "Log", "Neg", "Not", "QuantizeLinear", "Reciprocal",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round",
    "Sigmoid", "Sign", "Slice", "Split", "Sqrt", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
#: Stretched to each other: as many values as the product of all, at most.
_PRODUCT = frozenset((
    "Add", "And", "Div", "Equal", "Gather", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where",
))  # fmt: skip
#: The sizes of a tensor, of whatever it is.
_SHAPES = frozenset(("Shape", "Size"))
#: Axes of a tensor, at most.
_AXES = 64
#: Make tensors whose sizes are values, or known only when they are there.
_UNBOUNDED = frozenset((
    "Bernoulli", "BlackmanWindow", "Compress", "ConstantOfShape", "Einsum", "EyeLike",
    "HammingWindow", "HannWindow", "ImageDecoder", "MelWeightMatrix", "Multinomial",
    "NonMaxSuppression", "NonZero", "OneHot", "Optional", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "SequenceConstruct", "SequenceEmpty",
    "StringSplit", "TfIdfVectorizer", "Unique",
))  # fmt: skip
#: Whose inputs after the first say how large the result is.
_SIZED = frozenset((
    "AffineGrid", "CenterCropPad", "Col2Im", "DFT", "Expand", "MaxUnpool", "Pad",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Resize", "STFT",
    "Slice", "Split", "SplitToSequence", "Squeeze", "Tile", "TopK", "Trilu", "Unsqueeze", "Upsample",
))  # fmt: skip
#: Values that may be made of numbers, whatever the weights are, and times as many as these.
MODEST, TIMES = 1 << 22, 4


class Numbers:
    """Follows a graph from node to node.

    Parameters
    ----------
    weights
        Values in each tensor of the file, by its name.
    outside
        Names of the tensors that come from outside.
    """

    def __init__(self, weights: dict[str, int], outside: Collection[str]) -> None:
        self._counts = dict(weights) | {"": 0}  # an input that is left out
        self._pixels = set(outside) - set(weights)
        self._left = MODEST + TIMES * sum(weights.values())

    def add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], held: int) -> str | None:
        """Take the next node; return what is wrong with it, or ``None``.

        Parameters
        ----------
        operator
            Its kind.
        inputs, outputs
            Names of tensors.
        held
            Values in its attributes, at most.
        """
        if operator in _UNBOUNDED:
            return f"makes tensors whose sizes are values ({operator})"
        for name in outputs:
            if name and (name in self._counts or name in self._pixels):
                return "makes one tensor twice"
        for name in inputs:
            if name not in self._counts and name not in self._pixels:
                return "uses a tensor before it is made"
        pixels = [name in self._pixels for name in inputs]
        if operator in _SIZED and any(pixels[1:]):
            return f"takes sizes from pixels ({operator})"
        if any(pixels) and operator not in _SHAPES:
            self._pixels.update(outputs)
            return None
        count = self._bound(operator, [self._counts.get(name, 0) for name in inputs], held)
        if count is None:
            return f"computes from numbers in the file alone ({operator})"
        self._left -= count * len(outputs)
        if self._left < 0:
            return f"makes too many numbers from those in the file ({operator})"
        self._counts.update(dict.fromkeys(outputs, count))
        return None

    @staticmethod
    def _bound(operator: str, counts: list[int], held: int) -> int | None:
        """Return how many values a node makes at most, ``None`` where nobody can say."""
        if operator in _SHAPES:
            return _AXES
        if operator == "Constant":
            return held
        if operator in _LIKE_FIRST:
            return counts[0] if counts else 0
        if operator == "Concat":
            return sum(counts)
        if operator in _PRODUCT:
            product = 1
            for count in counts:
                product = min(product * max(count, 1), 1 << 62)
            return product
        return None

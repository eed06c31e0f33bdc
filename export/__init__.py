"""Export: from a training checkpoint to one ONNX graph, and from there to a TensorRT engine."""

"""TensorRT and TensorRT-RTX: plans, whether they fit, and the engine that runs them."""

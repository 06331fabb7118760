"""Places where a deployable runs; neither torch nor onnx is needed there."""

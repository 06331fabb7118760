"""From fake quantization to an ONNX file that says what it is."""

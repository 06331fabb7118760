import ml_dtypes  # noqa: F401 - registers the element types
import numpy as np
import onnx_ir as ir
import pytest

from mixbit.export.build import Builder
from mixbit.export.save import describe, to_bytes

INFO = {"input_shape": [3, 8, 8], "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": ["a", "b"]}


@pytest.fixture(scope="session")
def convolution(tmp_path_factory):
    """A float convolution with a policy in its metadata."""
    x = ir.Value(name="input", shape=ir.Shape(["batch", 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="output", type=ir.TensorType(ir.DataType.FLOAT))
    build = Builder([x])
    weight = build.constant("conv.weight", np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32))
    build.values[y] = build.node("Conv", [build.inputs[0], weight], "y", {"pads": [1] * 4}, node_name="conv")
    metadata = describe(policy={"conv": ("float", "float")}, inputs={}, info=INFO)
    path = tmp_path_factory.mktemp("files") / "conv.onnx"
    path.write_bytes(to_bytes(build.model([y], opset=21, ir_version=10), metadata))
    return path

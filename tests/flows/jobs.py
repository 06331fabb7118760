"""What tests ask of devices: a file of one layer, requests for it."""

from datetime import datetime

import numpy as np
import onnx_ir as ir

from mixbit.devices.device import request_for
from mixbit.export.build import Builder
from mixbit.export.save import describe, to_bytes

INFO = {"input_shape": [3, 8, 8], "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": ["a", "b"]}


def write_network(path, name, opset=21):
    """A network of one convolution; its `name` makes it another file than every other one."""
    x = ir.Value(name="input", shape=ir.Shape(["batch", 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="output", type=ir.TensorType(ir.DataType.FLOAT))
    build, rng = Builder([x]), np.random.default_rng(len(name))
    weight = build.constant("conv.weight", rng.standard_normal((16, 3, 3, 3)).astype(np.float32))
    build.values[y] = build.node("Conv", [build.inputs[0], weight], "y", {"pads": [1] * 4}, node_name="conv")
    metadata = describe(policy={"conv": ("float", "float")}, inputs={"of": name}, info=INFO)
    path.write_bytes(to_bytes(build.model([y], opset=opset, ir_version=10), metadata))
    return path


def request(path, limit_s=5.0, block_s=0.001, **settings):
    """A profile in a second or two."""
    models = dict.fromkeys(("model", "float", "w8a8"), path)
    return request_for(models, [3, 8, 8], limit_s=limit_s, block_s=block_s, **settings)


def slow_request(path):
    """Measures for about ten seconds."""
    return request(path, limit_s=10.0, block_s=0.3)


def long_request(path):
    """Would measure for minutes."""
    return request(path, limit_s=300.0, block_s=20.0)


def seconds(time_iso):
    return datetime.fromisoformat(time_iso).timestamp()

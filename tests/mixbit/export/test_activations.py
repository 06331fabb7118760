import numpy as np
import onnx_ir as ir
import pytest

from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import open_session, optimized_graph
from mixbit.export.activations import UNBOUNDED, emit_activation
from mixbit.export.build import Builder
from mixbit.export.codes import stretch_factor
from mixbit.export.marker import FakeQuant
from mixbit.export.save import to_bytes

SCALE = np.float32(0.37)
X = np.linspace(-60, 110, 4001, dtype=np.float32)


def _run(quantizer, *, stretch=1, bounds=UNBOUNDED, optimize=True):
    x = ir.Value(name="x", shape=ir.Shape(["n"]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))
    build = Builder([x])
    build.values[y] = emit_activation(build, quantizer, build.inputs[0], "q", stretch=stretch, bounds=bounds)
    content = to_bytes(build.model([y], opset=21, ir_version=10))
    return open_session(content, threads=1, optimize=optimize).run(None, {"x": X})[0]


def _expected(quantizer, bounds=UNBOUNDED):
    return np.rint(np.clip(np.clip(X, *bounds) / SCALE, quantizer.quant_min, quantizer.quant_max)) * SCALE


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", range(2, 9))
def test_bytes_hold_the_fake_quantized_values_exactly(num_bits, signed):
    quantizer = FakeQuant("q", SCALE, num_bits, signed)
    assert (_run(quantizer) == _expected(quantizer)).all()


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", range(2, 8))
def test_stretching_changes_codes_and_not_values(num_bits, signed, optimize):
    quantizer = FakeQuant("q", SCALE, num_bits, signed)
    found = _run(quantizer, stretch=stretch_factor(num_bits), optimize=optimize)
    assert np.allclose(found, _expected(quantizer), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (0.0, 6.0), (-3.0, 3.0)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stretch", [1, 4])
def test_bounds_of_a_relu_or_clip_become_bounds_of_codes(bounds, signed, stretch):
    quantizer = FakeQuant("q", SCALE, 6, signed)
    assert np.allclose(_run(quantizer, stretch=stretch, bounds=bounds), _expected(quantizer, bounds), rtol=1e-6, atol=0)


@pytest.mark.parametrize("num_bits", [3, 8])
def test_a_maximum_over_windows_is_taken_of_bytes_and_gives_the_same(num_bits):
    quantizer = FakeQuant("q", SCALE, num_bits, signed=True)
    x = ir.Value(name="x", shape=ir.Shape([1, 1, 40, 100]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))
    build = Builder([x])
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    build.values[y] = emit_activation(
        build, quantizer, build.inputs[0], "q", stretch=stretch_factor(num_bits),
        pool=lambda codes: build.node("MaxPool", [codes], "pool", window),
    )  # fmt: skip
    model = to_bytes(build.model([y], opset=21, ir_version=10))
    found = open_session(model, threads=1).run(None, {"x": X[:4000].reshape(1, 1, 40, 100)})[0]
    expected = _expected(quantizer)[:4000].reshape(1, 1, 20, 2, 50, 2).max((3, 5))
    assert np.allclose(found, expected, rtol=1e-6, atol=0)
    order = [node.op_type for node in read_nodes(optimized_graph(model, threads=1))]
    assert order.index("QuantizeLinear") < order.index("MaxPool") < order.index("DequantizeLinear")

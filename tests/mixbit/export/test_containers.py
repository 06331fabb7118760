import math

import numpy as np
import onnx_ir as ir
import pytest

from mixbit.devices.session import open_session
from mixbit.export.build import Builder
from mixbit.export.codes import weight_shift
from mixbit.export.containers import container, emit_codes
from mixbit.export.save import to_bytes
from mixbit.quantizers.lsq import quant_range


def _stored(num_bits, shape):
    low, high = quant_range(num_bits, signed=True)
    codes = np.random.default_rng(0).integers(low, high + 1, shape).astype(np.int8)
    build = Builder([])
    value = emit_codes(build, "layer", codes, num_bits, weight_shift(num_bits))
    # An initializer cannot be an output; the bytes stay those of the container.
    output = ir.Value(name="y", type=ir.TensorType(ir.DataType.INT8))
    build.values[output] = build.node("Identity", [value], "y")
    model = build.model([output], opset=25, ir_version=13)
    return codes, to_bytes(model)


@pytest.mark.parametrize("num_bits", range(2, 9))
@pytest.mark.parametrize("shape", [(16, 16, 3, 3), (7, 5, 3, 11), (3, 1)])
def test_runtime_unpacks_every_width_to_shifted_codes(num_bits, shape):
    codes, content = _stored(num_bits, shape)
    (found,) = open_session(content, threads=1).run(None, {})
    assert found.dtype == np.int8
    assert (found == codes << weight_shift(num_bits)).all()


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_stored_bytes_are_weights_times_num_bits(num_bits):
    _, content = _stored(num_bits, (64, 64, 3, 3))
    payload = 64 * 64 * 9 * num_bits / 8
    assert payload <= len(content) <= payload * 1.07


def test_small_layers_of_odd_width_take_the_next_element_type():
    assert container(3, 500) == ("int4", 4)
    assert container(3, 50_000) == ("planes", 3)
    assert container(5, 100) == ("int8", 8)


def test_container_never_costs_more_than_the_next_element_type():
    for num_bits in range(2, 9):
        for weights in (9, 500, 5_000, 50_000):
            _, stored_bits = container(num_bits, weights)
            assert num_bits <= stored_bits <= 2 ** math.ceil(math.log2(num_bits))

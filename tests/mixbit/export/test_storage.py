import numpy as np
import onnx
import pytest

from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import open_session, optimized_graph
from mixbit.export.build import Builder
from mixbit.export.codes import bias_codes
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes
from mixbit.export.sixteen import BFLOAT16, FLOAT16, exact, snapped
from mixbit.export.storage import emit_bias, emit_channels
from tests.mixbit.export.conftest import WIDTHS, make_case

SIXTEEN = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _types(content):
    return {t.name: t.data_type for t in onnx.load_from_string(content).graph.initializer if t.dims}


def test_every_scale_and_bias_of_a_settled_network_is_stored_in_16_bits(mixed):
    types = _types(to_bytes(lower_packed(mixed.marked)))
    found = {name: kind for name, kind in types.items() if name.endswith((".scale", ".bias", ".channels"))}
    assert {name.rpartition(".")[0] for name in found} == set(mixed.policy)
    assert set(found.values()) <= set(SIXTEEN)


def test_channels_that_a_batchnorm_switches_off_leave_a_layer_in_16_bits():
    case = make_case(WIDTHS, switched_off=("stem_bn", "wide_bn"))
    types = _types(to_bytes(lower_packed(case.marked)))
    assert types["stem.channels"] == types["wide.channels"] == onnx.TensorProto.FLOAT16
    output = open_session(case.packed, threads=1).run(None, {"input": case.x.numpy()})[0]
    assert (output.argmax(1) == case.recorded.output.argmax(1)).mean() >= 0.98


def test_a_network_that_was_never_settled_is_stored_in_32_bits_and_runs_int8():
    case = make_case(WIDTHS, settled=False)
    assert not set(_types(case.packed).values()) & set(SIXTEEN)
    assert not_int8(executed_kernels(case.packed, case.policy, threads=1)) == {}


def test_what_16_bits_hold_is_computed_at_loading_and_never_again(mixed):
    left = {node.op_type for node in read_nodes(optimized_graph(mixed.packed, threads=1))}
    assert left.isdisjoint({"Cast", "Div", "Round", "Mul", "ReduceSum", "BitShift"})


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("held", [FLOAT16, BFLOAT16])
def test_the_runtime_computes_the_int32_codes_that_the_exporter_counts_on(held, shift):
    rng = np.random.default_rng(0)
    bias = (rng.normal(size=4000) * 10.0 ** rng.uniform(-3, 1, 4000)).astype(held).astype(np.float64)
    scale = (2.0 ** rng.uniform(-4, 4, 4000) * rng.choice([-1, 1], 4000)).astype(held).astype(np.float32)
    scale *= np.float32(2.0 ** -(12 + shift))
    build = Builder([])
    scales, biases = emit_channels(build, "l", scale, bias, shift)
    dequantized = emit_bias(build, "l", biases, bias_codes(bias, scale), scales)
    model = build.model([], opset=21, ir_version=10)
    model.graph.outputs.append(dequantized.producer().inputs[0])
    (codes,) = open_session(to_bytes(model), threads=1).run(None, {})
    assert (codes == bias_codes(bias, scale)).all()
    held = [value.const_value.nbytes for value in model.graph.initializers.values() if str(value.name).startswith("l.")]
    assert sum(held) == 4 * 4000


def test_numbers_move_to_16_bits_only_within_their_slack():
    near, far = np.array([1 + 1e-9, 2.0]), np.array([1 + 1e-4, 2.0])
    slack = np.full(2, 2.0**-22)
    assert snapped(near, slack).tolist() == [1, 2]
    assert snapped(far, slack).tolist() == far.tolist()


def test_what_is_too_large_for_float16_is_held_by_bfloat16_or_not_at_all():
    assert exact(np.array([2.0**17, 1.5])).dtype == BFLOAT16
    assert exact(np.array([2.0**17, 1 + 2.0**-10])) is None

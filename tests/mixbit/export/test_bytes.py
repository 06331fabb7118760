import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.export.bytes import lower_bytes
from mixbit.export.end_to_end import compare_files
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes


@pytest.fixture(scope="module")
def whole_bytes(mixed):
    return to_bytes(lower_bytes(mixed.marked))


def test_every_code_is_a_byte_in_an_old_opset(whole_bytes):
    model = onnx.load_from_string(whole_bytes)
    types = {onnx.TensorProto.DataType.Name(one.data_type) for one in model.graph.initializer}
    assert types <= {"INT8", "UINT8", "FLOAT", "INT32", "INT64"}
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    onnx.checker.check_model(model, full_check=True)


def test_it_computes_exactly_what_packed_computes_on_one_runtime(mixed, whole_bytes):
    found = compare_files(mixed.packed, whole_bytes, mixed.x, threads=1)
    assert found == {"differing_pictures": 0, "largest_output_difference": 0.0, "same_class": 1.0}


def test_its_codes_are_those_of_packed_unpacked(mixed):
    stored = {
        name: value.const_value.numpy()
        for name, value in lower_bytes(mixed.marked).graph.initializers.items()
        if name.endswith(".codes")
    }
    eight_bits = lower_packed(mixed.marked).graph.initializers["stem.codes"].const_value.numpy()
    assert np.array_equal(stored["stem.codes"], eight_bits)
    assert {layer for layer, entry in mixed.policy.items() if "float" not in entry} == {
        name.removesuffix(".codes") for name in stored
    }


def test_every_layer_runs_int8(mixed, whole_bytes):
    assert not_int8(executed_kernels(whole_bytes, mixed.policy, threads=1)) == {}


def test_another_network_is_told(mixed, whole_bytes):
    found = compare_files(mixed.packed, _changed(whole_bytes), mixed.x, threads=1)
    assert found["differing_pictures"] > len(mixed.x) / 2


def _changed(content):
    model = ir.from_proto(onnx.load_from_string(content))
    codes = model.graph.initializers["head.codes"]
    codes.const_value = ir.tensor(-codes.const_value.numpy(), name="head.codes")
    return to_bytes(model)


@pytest.mark.parametrize(("layer", "opset"), [(nn.GELU(), 20), (nn.GroupNorm(2, 4), 21), (nn.ReLU(), 18)])
def test_the_opset_is_the_first_in_which_all_operations_mean_the_same(layer, opset):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Conv2d(4, 4, 3)).eval()
    marked = marker_graph(network, [3, 9, 9])
    lowered = lower_bytes(marked)
    assert lowered.opset_imports[""] == opset
    x = torch.randn(4, 3, 9, 9)
    assert compare_files(to_bytes(lower_packed(marked)), to_bytes(lowered), x, threads=1)["differing_pictures"] == 0

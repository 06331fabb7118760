from collections import Counter

import pytest
import torch
from torch import nn

from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_nodes
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes
from mixbit.export.variants import Variants
from mixbit.models.graph import describe_layers
from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY
from tests.mixbit.export.conftest import SHAPE, Small, make_case

INFO = {"input_shape": list(SHAPE), "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": []}
FLOAT_AND_INT8 = [FLOAT_ENTRY, INT8_ENTRY, INT8_ENTRY]


@pytest.fixture(scope="module")
def variants():
    torch.manual_seed(0)
    model = Small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)  # a bias of 0 is a 16-bit number, which files hold in other nodes
    layers = describe_layers(model, SHAPE)
    return Variants(model, layers, {layer["name"]: INT8_ENTRY for layer in layers["layers"]}, INFO)


def _what_is_computed(file, policy):
    """How often each operation is written, with the layer's name where it is one's."""
    return Counter((node.op_type, node.name if node.name in policy else "") for node in read_nodes(file))


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_variant_computes_what_an_export_of_its_policy_does(variants, turn):
    case = make_case(FLOAT_AND_INT8[turn:] + FLOAT_AND_INT8[:turn], settled=False)
    found = _what_is_computed(variants.file(case.policy), case.policy)
    assert found == _what_is_computed(to_bytes(lower_packed(case.marked)), case.policy)


def test_a_float_layer_between_int8_layers_is_computed_in_float(variants):
    policy = dict.fromkeys(variants.policy, INT8_ENTRY) | {"wide": FLOAT_ENTRY}
    kernels = executed_kernels(variants.file(policy), policy, threads=1)
    assert {name for name, kernel in kernels.items() if kernel.executed == "float"} == {"wide"}
    assert "missing" not in {kernel.kernel for kernel in kernels.values()}

"""Networks as users write them: traced, quantized, exported, and checked in ONNX Runtime."""

from collections import OrderedDict

import pytest
from torch import nn

from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import optimized_graph
from mixbit.export.check import activation_quantizers, check_layers, flip_rate
from mixbit.export.end_to_end import DeployedModel, compare
from mixbit.export.packed import lower_packed
from mixbit.export.ref import lower_ref
from tests.mixbit.export.conftest import make_case
from tests.mixbit.models.user_networks import NETWORKS, SHAPE, Reused, Tokens

WIDTHS = [(8, 8), (4, 4), (3, 5), (6, 3), (5, 7), (2, 6), (7, 4)]


class Sum(nn.Module):
    """x + part(x)."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return (x + self.part(x)).relu()


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    return make_case(WIDTHS, SHAPE, NETWORKS[request.param]())


def _forced(case, lower, *, optimize):
    quantizers = activation_quantizers(case.marked)
    return check_layers(
        lower(case.marked, forced=True), quantizers, case.recorded, case.x, threads=1, optimize=optimize
    )


def test_ref_gives_equal_codes_except_at_ties_and_equal_outputs(case):
    checks, difference = _forced(case, lower_ref, optimize=False)
    assert sum(check.off_tie for check in checks.values()) == 0
    assert difference < 1e-5


def test_pictures_without_a_flip_agree_within_1e_5(case):
    quantizers = activation_quantizers(case.marked)
    whole = compare(lower_ref(case.marked), quantizers, case.recorded, case.x, threads=1, optimize=False)
    assert not whole.flipped.all()
    assert whole.clean_difference < 1e-5


def test_every_call_of_every_layer_runs_int8(case):
    kernels = executed_kernels(case.packed, case.policy, threads=1)
    assert not_int8(kernels) == {}
    calls = {layer["name"]: layer["calls"] for layer in case.layers["layers"]}
    assert {name: kernel.calls for name, kernel in kernels.items()} == calls


def test_int8_kernels_flip_few_codes_and_hardly_a_class(case):
    checks, _ = _forced(case, lower_packed, optimize=True)
    assert flip_rate(checks) < 2e-3
    output = DeployedModel(case.packed, threads=1)(case.x).numpy()
    assert (output.argmax(1) == case.recorded.output.argmax(1)).mean() >= 0.98


def test_signs_are_those_of_the_tensors(case):
    for quantizer in activation_quantizers(case.marked):
        assert quantizer.signed == bool((case.recorded.ratios[quantizer.label] < 0).any()), quantizer.label


def ops(case):
    return [node.op_type for node in read_nodes(optimized_graph(case.packed, threads=1))]


@pytest.mark.parametrize("name", ["residual", "inverted_residual"])
def test_sums_of_kernel_outputs_run_int8(name):
    found = ops(make_case([(4, 4)], SHAPE, NETWORKS[name]()))
    assert "QLinearAdd" in found
    assert "Add" not in found


def test_a_layer_called_twice_keeps_one_copy_of_its_codes():
    stored = list(lower_packed(make_case([(4, 4)], SHAPE, Reused()).marked).graph.initializers)
    assert [name for name in stored if name.endswith(".weight")] == ["patches.weight", "mix.weight", "fc.weight"]


def test_a_linear_over_tokens_keeps_its_weights_at_their_true_size():
    packed = lower_packed(make_case([(8, 8), (4, 4)], SHAPE, Tokens(nn.GELU())).marked)
    assert packed.graph.initializers["up.weight"].const_value.nbytes == 16 * 48 // 2


@pytest.mark.parametrize("name", ["one", "bit", "flat", "axis0", "zeros24", "byte128", "shift3"])
def test_a_layer_may_be_called_as_one_of_our_own_constants(name):
    model = nn.Sequential(
        OrderedDict([("flatten", nn.Flatten()), (name, nn.Linear(432, 24)), ("fc", nn.Linear(24, 5))])
    )
    case = make_case([(3, 4)], SHAPE, model)
    checks, _ = _forced(case, lower_packed, optimize=True)
    assert flip_rate(checks) < 2e-3


def test_a_float_linear_over_tokens_is_reported_as_float():
    case = make_case([(4, 4), ("float", "float"), (4, 4), (4, 4)], SHAPE, Tokens(nn.ReLU()))
    kernels = executed_kernels(case.packed, case.policy, threads=1)
    assert (kernels["up"].executed, kernels["up"].reason) == ("float", "")
    assert kernels["down"].executed == "int8"


def test_a_stem_with_a_pool_before_a_residual_block_leaves_no_float_between_kernels():
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    model = nn.Sequential(stem, Sum(nn.Conv2d(8, 8, 3, padding=1)), nn.Conv2d(8, 4, 3), nn.Flatten())
    for entry in ((8, 8), (3, 3)):
        case = make_case([entry], SHAPE, model)
        kernels = {node.op_type for node in read_nodes(optimized_graph(case.packed, threads=1))}
        assert "NhwcMaxPool" in kernels
        assert not kernels & {"MaxPool", "Add", "QLinearMul"}

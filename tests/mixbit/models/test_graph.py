import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixbit.models.graph import describe_layers, trace
from mixbit.models.resnet import resnet8, resnet20
from tests.mixbit.models.networks import Attention, Body, PreActivation, Residual, Twice


def described(model, *input_shape):
    return describe_layers(model, input_shape)


def by_name(description):
    return {layer["name"]: layer for layer in description["layers"]}


def hooked_macs(model, x):
    """MACs counted from inside: one hook per layer, every call, from what really went in and out."""
    counted = {}

    def count(name):
        def hook(module, _, out):
            counted[name] = counted.get(name, 0) + out[0].numel() * module.weight.numel() // module.weight.shape[0]

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count(name))
    model(x)
    return counted


def test_macs_of_a_strided_convolution_on_an_odd_picture_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=True), nn.Flatten(), nn.Linear(8 * 15 * 4, 10))
    layers = by_name(described(model, 3, 29, 7))  # 29 -> 15 and 7 -> 4
    assert layers["0"]["macs"] == 15 * 4 * 8 * 3 * 9
    assert (layers["0"]["weights"], layers["0"]["biases"]) == (8 * 3 * 9, 8)
    assert layers["2"]["macs"] == 8 * 15 * 4 * 10


def test_macs_of_groups_and_dilation_by_hand():
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 4, (3, 1), dilation=2, groups=2))
    layers = by_name(described(model, 6, 9, 9))
    assert layers["0"]["macs"] == 7 * 7 * 6 * 9
    assert layers["1"]["macs"] == 3 * 7 * 4 * 3 * 3
    assert (layers["1"]["in_channels"], layers["1"]["out_channels"], layers["1"]["groups"]) == (6, 4, 2)


def test_a_linear_over_tokens_counts_every_token():
    layers = by_name(described(Attention(dim=8), 1, 8, 8))
    assert layers["qkv"]["macs"] == 4 * 8 * 24
    assert layers["head"]["macs"] == 8 * 3
    assert layers["qkv"]["biases"] == 24


def test_a_layer_called_twice_sums_its_macs_and_has_its_weights_once():
    description = described(Twice(), 2, 9, 9)
    conv = by_name(description)["conv"]
    assert conv["macs"] == (7 * 7 + 5 * 5) * 2 * 2 * 9
    assert (conv["calls"], conv["weights"]) == (2, 36)
    assert description["never_run"] == ["unused"]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_macs_equal_those_of_a_hooked_forward_pass(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups, kernel, dilation = draw(1, 3), (draw(1, 4), draw(1, 4)), draw(1, 2)
    channels, stride, padding = (groups * draw(1, 2), groups * draw(1, 2)), (draw(1, 3), draw(1, 3)), (draw(0, 2), 1)
    conv = nn.Conv2d(*channels, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
    size = conv.in_channels, draw(8, 17), draw(8, 17)
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(draw(1, 3)), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, *size))
    description = described(model, *size)
    assert {name: layer["macs"] for name, layer in by_name(description).items()} == hooked_macs(
        model, torch.zeros(1, *size)
    )


@pytest.mark.parametrize(
    ("model", "shape"), [(resnet20(10), (3, 32, 32)), (Residual(), (1, 7, 9)), (Attention(), (1, 8, 8))]
)
def test_whole_networks_count_as_hooked(model, shape):
    description = described(model, *shape)
    counted = hooked_macs(model.eval(), torch.zeros(1, *shape))
    assert {name: layer["macs"] for name, layer in by_name(description).items()} == counted


def test_resnet20_on_cifar_has_its_41_million_macs():
    description = described(resnet20(10), 3, 32, 32)
    convolutions = 3 * 16 * 9 * 1024 + 6 * 2304 * 1024 + (4608 + 5 * 9216) * 256 + (18432 + 5 * 36864) * 64
    shortcuts = 512 * 256 + 2048 * 64
    assert len(description["layers"]) == 22
    assert sum(layer["macs"] for layer in description["layers"]) == convolutions + shortcuts + 640


def test_layers_come_in_execution_order_not_in_order_of_registration():
    description = described(Residual(), 1, 8, 8)
    assert list(by_name(description)) == ["stem", "conv1", "conv2", "shortcut", "fc"]
    assert (description["first"], description["last"]) == ("stem", "fc")


def test_readers_of_one_tensor_and_tied_outputs_are_found():
    description = described(Residual(), 1, 8, 8)
    assert description["shared_activations"] == [["conv1", "shortcut"]]
    assert description["residual_ties"] == [["conv2", "shortcut"]]
    assert by_name(description)["conv1"]["reads"] == by_name(description)["shortcut"]["reads"]


def test_a_chain_of_identity_blocks_is_one_tie():
    ties = described(resnet20(10, width=4), 3, 8, 8)["residual_ties"]
    assert ties[0] == ["conv", "stages.0.conv2", "stages.1.conv2", "stages.2.conv2"]
    assert ties[1] == ["stages.3.conv2", "stages.3.shortcut.0", "stages.4.conv2", "stages.5.conv2"]


def test_each_batchnorm_belongs_to_the_layer_that_feeds_it():
    expected = {"stem_bn": "stem", "bn1": "conv1", "bn2": "conv2", "shortcut_bn": "shortcut"}
    assert described(Residual(), 1, 8, 8)["batchnorms"] == expected


def test_a_batchnorm_after_a_sum_belongs_to_the_layer_that_ran_last():
    model = Body(lambda self, x: self.bn(x + self.side(x)), side=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4))
    assert described(model, 1, 6, 6)["batchnorms"] == {"bn": "side"}


def test_a_batchnorm_before_every_layer_belongs_to_the_first():
    assert described(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)), 1, 5, 5)["batchnorms"] == {"0": "1"}


@pytest.mark.parametrize(
    ("model", "shape"),
    [(Residual(), (1, 8, 8)), (PreActivation(), (1, 8, 8)), (Twice(), (2, 9, 9)), (resnet8(4), (3, 8, 8))],
)
def test_the_trace_computes_what_the_model_computes(model, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(model).eval()(x.clone())
    assert torch.equal(trace(model, shape)(x), expected)


def test_the_trace_has_no_operation_that_changes_a_tensor_in_place():
    for model in (Residual(), PreActivation()):
        graph = trace(model, (1, 8, 8))
        assert not any(getattr(module, "inplace", False) for module in graph.modules())
        assert not any(str(node.target).find("iadd") >= 0 for node in graph.graph.nodes)


def test_the_model_is_left_as_it_was():
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    described(model, 1, 8, 8)
    assert model.training
    assert model.relu.inplace
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_describing_twice_gives_the_same():
    assert described(resnet8(10), 3, 8, 8) == described(resnet8(10), 3, 8, 8)

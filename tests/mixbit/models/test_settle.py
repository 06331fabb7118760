import copy

import pytest
import torch
from torch import nn

from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized, save_quantized
from mixbit.models.settle import FLOAT16_RANGE, SCALE_UNIT, settle_, sixteen_bits

SHAPE = (3, 8, 8)


class Network(nn.Module):
    """A grouped convolution with BatchNorm, one called twice of which one call has a BatchNorm, a Linear."""

    def __init__(self, affine=True):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=affine)
        self.again, self.again_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.again(torch.relu(self.again_norm(self.again(x)))))
        return self.head(x.mean((2, 3)))


def quantized(network=None, bits=(4, 4), per_channel=True):
    torch.manual_seed(0)
    network = (network or Network()).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.1, 3)
            if module.affine:
                nn.init.normal_(module.weight, 0.5, 0.5)
                nn.init.normal_(module.bias, 0, 0.5)
    layers = describe_layers(network, SHAPE)
    policy = {layer["name"]: bits for layer in layers["layers"]}
    return build_quantized(network, layers, policy, torch.randn(8, *SHAPE), per_channel)


def folded(model, layer, norm):
    """(scale, bias) of a kernel, float64."""
    layer, norm = model.get_submodule(layer), model.get_submodule(norm)
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    scale = layer.weight_quantizer.scale.double().reshape(-1) * gain
    return scale, norm.bias.double() + gain * (layer.bias.double() - norm.running_mean.double())


def assert_held(values):
    torch.testing.assert_close(values, values.half().double(), rtol=2**-22, atol=2**-22)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("norm", ["norm", "again_norm"])
def test_folded_scales_and_biases_are_16_bit_numbers(norm, per_channel):
    model = quantized(per_channel=per_channel)
    settle_(model)
    scale, bias = folded(model, {"norm": "conv", "again_norm": "again"}[norm], norm)
    assert_held(scale / SCALE_UNIT)
    assert_held(bias)


def test_gamma_moves_by_at_most_2_to_the_minus_11_and_a_bias_by_that_of_the_largest():
    model = quantized()
    gamma, (_, bias) = model.get_submodule("norm").weight.clone(), folded(model, "conv", "norm")
    settle_(model)
    assert ((model.get_submodule("norm").weight / gamma - 1).abs() <= 2**-11 * 1.001).all()
    moved = (folded(model, "conv", "norm")[1] - bias).abs().max()
    # Where the mean is larger than the bias, the settled gamma moves it, and then beta moves it back.
    assert 0 < moved <= 2**-11 * bias.abs().max() + 2**-11 * model.get_submodule("norm").running_mean.abs().max()


def test_a_layer_without_batchnorm_is_settled_itself():
    model = quantized()
    settle_(model)
    head = model.get_submodule("head")
    scale = head.weight_quantizer.scale / SCALE_UNIT
    assert torch.equal(scale, scale.half().float())
    assert torch.equal(head.bias, head.bias.half().float())


def test_settling_again_changes_nothing():
    model = quantized()
    settle_(model)
    before = save_quantized(copy.deepcopy(model))
    settle_(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in save_quantized(model).items())


@pytest.mark.parametrize(("network", "bits"), [(Network(), ("float", "float")), (Network(affine=False), (4, 4))])
def test_float_layers_and_a_batchnorm_without_gamma_stay(network, bits):
    model = quantized(network, bits)
    before = {name: tensor for name, tensor in save_quantized(model).items() if name.startswith(("conv", "norm"))}
    settle_(model)
    assert all(torch.equal(save_quantized(model)[name], tensor) for name, tensor in before.items())


def test_biases_that_float16_cannot_hold_are_bfloat16_numbers():
    assert sixteen_bits(torch.tensor([70_000.0, 1.0]).double()).tolist() == [70_144.0, 1.0]
    tiny = torch.tensor([FLOAT16_RANGE[0] / 3]).double()
    assert sixteen_bits(tiny).item() == tiny.bfloat16().double().item() != tiny.half().double().item()

import pytest
import torch

from mixbit.models.graph import describe_layers
from mixbit.quantizers.mse import mse_scale
from mixbit.training.evaluate import evaluate
from mixbit.training.numerics import fixed_numerics
from mixbit.training.task import classification
from tests.policies.indicator_case import SHAPE, compute, pictures, resnet


@pytest.fixture(autouse=True)
def one_thread():
    with fixed_numerics(1):
        yield


def loss_of(net, given):
    return evaluate(net, given.x, given.y, given.info, classification()).loss


def rounded(x, num_bits, signed, channel_dim=None):
    scale = mse_scale(x, num_bits, signed, channel_dim)
    low, high = (-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1) if signed else (0, 2**num_bits - 1)
    return (x / scale).clamp(low, high).round() * scale


def test_a_weights_harm_is_the_rise_of_the_loss_with_that_weight_rounded(tmp_path):
    given, net = pictures(), resnet()
    raw = compute("loss_delta", tmp_path, net=net)[0]["raw"]
    before = loss_of(net, given)
    weight = net.stages[1].conv2.weight
    with torch.no_grad():
        weight.copy_(rounded(weight, 2, signed=True, channel_dim=0))
    assert raw["stages.1.conv2"]["weight"]["2"] == pytest.approx(loss_of(net, given) - before, abs=1e-6)


def test_a_shared_activations_harm_is_half_the_rise_with_both_readers_reading_it_rounded(tmp_path):
    given, net = pictures(), resnet()
    raw = compute("loss_delta", tmp_path, net=net)[0]["raw"]
    before, block = loss_of(net, given), net.stages[1]
    hooks = [
        layer.register_forward_pre_hook(lambda _, read: (rounded(read[0], 2, signed=False),))
        for layer in (block.conv1, block.shortcut[0])
    ]
    after = loss_of(net, given)
    for hook in hooks:
        hook.remove()
    assert raw["stages.1.conv1"]["activation"]["2"] == pytest.approx((after - before) / 2, abs=1e-6)
    assert raw["stages.1.conv1"]["activation"] == raw["stages.1.shortcut.0"]["activation"]


def test_a_loss_that_falls_is_no_harm_and_told_as_a_repair(tmp_path):
    indicators, _ = compute("loss_delta", tmp_path)
    fell = [repair for repair in indicators["repairs"] if repair["from"] < 0]
    assert fell
    assert all(repair["to"] >= 0 for repair in fell)


def test_each_tensor_costs_one_pass_over_the_pictures(tmp_path):
    indicators, _ = compute("loss_delta", tmp_path, num_bits=(4,), pictures=48, batch_size=24)
    layers = describe_layers(resnet(), SHAPE)
    tensors = 8 - len(layers["shared_activations"])
    assert indicators["cost"] == {"forward_passes": 2 * (1 + 8 + tensors), "backward_passes": 0,
                                  "samples": 48 * (1 + 8 + tensors)}  # fmt: skip

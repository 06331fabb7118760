import copy

import pytest
import torch
from torch import nn

from mixbit.errors import MisuseError, MixbitError
from mixbit.models.build import load_state_
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized, save_quantized
from mixbit.models.supernet import (
    activation_quantizer,
    batchnorm_bits,
    build_supernet,
    initial_weight_scale,
    set_bits_,
    weight_quantizer,
)
from mixbit.models.warm_start import plain_weights, warm_start_
from mixbit.quantizers.lsq import MultiQuantizer
from tests.mixbit.models.networks import Residual, Twice

BITS = [2, 4, 6]


def pictures(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    model, x = Residual().eval(), pictures(32, 1, 8, 8)
    return model, describe_layers(model, (1, 8, 8)), x


def everywhere(layers, bits):
    return {layer["name"]: (bits, bits) for layer in layers["layers"]}


def trained_a_step(supernet, layers, x):
    """One joint step: a backward pass per num_bits; private statistics and scales then differ."""
    supernet.train()
    for bits in BITS:
        set_bits_(supernet, everywhere(layers, bits))
        supernet(x).square().sum().backward()
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad.clamp(-1, 1))
    return supernet.eval()


def test_after_one_joint_step_every_scale_has_a_gradient(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x).train()
    for bits in BITS:
        set_bits_(supernet, everywhere(layers, bits))
        supernet(x).square().sum().backward()
    found = [module for module in supernet.modules() if isinstance(module, MultiQuantizer)]
    assert len(found) == 5 + 4  # weights; tensors read
    assert all(quantizer.scale(bits).grad.abs() > 0 for quantizer in found for bits in BITS)


def test_gradients_of_a_joint_step_add_up(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    alone = []
    for bits in BITS:
        set_bits_(supernet, everywhere(layers, bits))
        alone.append(torch.autograd.grad(supernet(x).square().sum(), supernet.get_submodule("conv1").weight)[0])
    trained = build_supernet(model, layers, BITS, x)
    for bits in BITS:
        set_bits_(trained, everywhere(layers, bits))
        trained(x).square().sum().backward()
    assert torch.allclose(trained.get_submodule("conv1").weight.grad, sum(alone), rtol=1e-4, atol=1e-5)


def test_at_float_the_super_net_is_the_model_exactly(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    expected = model(x)
    assert torch.equal(supernet(x), expected)
    set_bits_(supernet, everywhere(layers, 2))
    assert not torch.equal(supernet(x), expected)
    set_bits_(supernet, everywhere(layers, "float"))
    assert torch.equal(supernet(x), expected)


def test_names_of_the_float_model_are_kept(residual):
    model, layers, x = residual
    assert set(model.state_dict()) <= set(build_supernet(model, layers, BITS, x).state_dict())


def test_layers_are_switched_one_by_one(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    set_bits_(supernet, everywhere(layers, 6) | {"conv2": (2, 4)})
    assert (weight_quantizer(supernet, "conv2").num_bits, activation_quantizer(supernet, "conv2").num_bits) == (2, 4)
    assert weight_quantizer(supernet, "conv1").num_bits == 6
    assert activation_quantizer(supernet, "conv1") is activation_quantizer(supernet, "shortcut")
    codes = weight_quantizer(supernet, "conv2")(supernet.get_submodule("conv2").weight)
    assert len(codes.unique()) <= 4


def test_each_num_bits_has_statistics_of_its_own(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x).train()
    set_bits_(supernet, everywhere(layers, 4))
    supernet(x)
    batchnorm = supernet.get_submodule("bn1")
    assert {bits: int(bn.num_batches_tracked) for bits, bn in batchnorm.private.items()} == {"2": 0, "4": 1, "6": 0}
    assert int(batchnorm.num_batches_tracked) == 0


def test_a_batchnorm_follows_its_own_layer(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    set_bits_(supernet, everywhere(layers, 6) | {"shortcut": (2, 6)})
    in_use = {name: supernet.get_submodule(name).num_bits for name in layers["batchnorms"]}
    assert in_use == {"stem_bn": 6, "bn1": 6, "bn2": 6, "shortcut_bn": 2}


@pytest.mark.parametrize(
    ("entry", "expected"), [((4, 4), 4), ((2, 6), 2), ((6, 2), 2), ((8, 8), "float"), ((3, 5), 4), ((4, "float"), 4),
                            (("float", "float"), "float")]
)  # fmt: skip
def test_a_batchnorm_takes_the_lower_num_bits_or_the_next_candidate_above(entry, expected):
    assert batchnorm_bits(entry, BITS) == expected


def test_the_first_scales_are_statistics(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    weight = model.conv1.weight
    expected = max(abs(weight.mean() - 3 * weight.std()), abs(weight.mean() + 3 * weight.std())) / 8
    assert weight_quantizer(supernet, "conv1").scale(4).item() == pytest.approx(expected.item())
    assert activation_quantizer(supernet, "stem").scale(4).item() == pytest.approx(2 * x.abs().mean().item() / 7**0.5)
    assert initial_weight_scale(torch.zeros(1), 4) == 1


def test_a_copy_switches_its_own_quantizers(residual):
    model, layers, x = residual
    supernet = build_supernet(model, layers, BITS, x)
    other = copy.deepcopy(supernet)
    set_bits_(other, everywhere(layers, 2))
    assert weight_quantizer(supernet, "fc").num_bits == "float"
    assert weight_quantizer(other, "fc").num_bits == 2


def test_a_layer_called_twice_switches_every_tensor_it_reads():
    model, x = Twice(), pictures(4, 2, 9, 9)
    layers = describe_layers(model, (2, 9, 9))
    supernet = build_supernet(model, layers, BITS, x)
    set_bits_(supernet, {"conv": (4, 2)})
    in_use = {name: q.num_bits for name, q in supernet.get_submodule("activation_quantizers").named_children()}
    assert in_use == {"x": 2, "relu": 2, "amax": "float"}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ({"conv9": (2, 2)}, "conv9: no such layer"),
        ({"conv1": (3, 2)}, "no such candidate num_bits"),
        ({"conv1": (2, 2), "shortcut": (2, 4)}, "shortcut: another layer reads relu too"),
    ],
)
def test_an_impossible_assignment_is_refused(residual, assignment, said):
    model, layers, x = residual
    with pytest.raises(MisuseError, match=said):
        set_bits_(build_supernet(model, layers, BITS, x), assignment)


def test_the_plain_weights_load_as_a_float_checkpoint_with_the_fitting_batchnorms(residual):
    model, layers, x = residual
    supernet = trained_a_step(build_supernet(model, layers, BITS, x), layers, x)
    policy = everywhere(layers, 6) | {"conv1": (2, 6), "stem": (8, 8)}
    plain = plain_weights(save_quantized(supernet), layers["batchnorms"], policy)
    load_state_(Residual(), plain, "plain")
    assert torch.equal(plain["conv2.weight"], supernet.get_submodule("conv2").weight)
    assert torch.equal(plain["bn1.running_var"], supernet.get_submodule("bn1").private["2"].running_var)
    assert torch.equal(plain["bn2.running_var"], supernet.get_submodule("bn2").private["6"].running_var)
    assert torch.equal(plain["stem_bn.running_var"], supernet.get_submodule("stem_bn").running_var)


def test_a_warm_start_takes_weights_statistics_and_learned_scales(residual):
    model, layers, x = residual
    supernet = trained_a_step(build_supernet(model, layers, BITS, x), layers, x)
    policy = everywhere(layers, 4)
    quantized = build_quantized(model, layers, policy, x, per_channel=False)
    warm_start_(quantized, save_quantized(supernet), policy)
    for path in ("conv1.weight_quantizer", "activation_quantizers.relu"):
        assert torch.equal(quantized.get_submodule(path).scale, supernet.get_submodule(path).scale(4))
    bn = supernet.get_submodule("bn1").private["4"]
    assert torch.equal(quantized.get_submodule("bn1").running_mean, bn.running_mean)


def test_a_warm_start_without_output_quantizers_computes_what_the_super_net_computes(residual):
    x = residual[2]
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 6)).eval()
    layers = describe_layers(plain, (1, 8, 8))
    supernet = trained_a_step(build_supernet(plain, layers, BITS, x), layers, x)
    policy = everywhere(layers, 4)
    quantized = build_quantized(plain, layers, policy, x, per_channel=False)
    warm_start_(quantized, save_quantized(supernet), policy)
    set_bits_(supernet, policy)
    assert torch.equal(quantized(x), supernet(x))


def test_per_channel_scales_are_chosen_on_the_warm_weights(residual):
    model, layers, x = residual
    supernet = trained_a_step(build_supernet(model, layers, BITS, x), layers, x)
    policy = everywhere(layers, 4)
    warm = copy.deepcopy(model)
    load_state_(warm, plain_weights(save_quantized(supernet), layers["batchnorms"], policy), "plain")
    quantized = build_quantized(model, layers, policy, x)
    warm_start_(quantized, save_quantized(supernet), policy)
    fresh = build_quantized(warm, layers, policy, x)
    path = "conv1.weight_quantizer"
    assert torch.equal(quantized.get_submodule(path).scale, fresh.get_submodule(path).scale)


def test_the_super_net_of_another_model_is_refused(residual):
    model, layers, x = residual
    other = Residual(width=8)
    tensors = save_quantized(build_supernet(other, describe_layers(other, (1, 8, 8)), BITS, x))
    policy = everywhere(layers, 4)
    with pytest.raises(MixbitError, match="warm start: another model's super-net"):
        warm_start_(build_quantized(model, layers, policy, x), tensors, policy)

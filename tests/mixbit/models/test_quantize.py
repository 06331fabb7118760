import copy
import itertools

import pytest
import torch
from safetensors.torch import load, save

from mixbit.errors import MisuseError, MixbitError
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized, load_quantized, save_quantized
from mixbit.models.resnet import resnet8
from mixbit.quantizers.lsq import Quantizer, clamp_scales_, fake_quantize
from tests.mixbit.models.networks import Attention, PreActivation, Residual, Twice


def pictures(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def trained_statistics(model, x):
    """BatchNorms that have seen data, so that eval mode is not the identity."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x.clone())
    return model.eval()


def uniform(layers, weight_bits, activation_bits):
    return {layer["name"]: (weight_bits, activation_bits) for layer in layers["layers"]}


@pytest.fixture
def residual():
    torch.manual_seed(0)
    x = pictures(32, 1, 8, 8)
    model = trained_statistics(Residual(), x)
    return model, describe_layers(model, (1, 8, 8)), x


NETWORKS = [(Residual, (1, 8, 8)), (PreActivation, (1, 8, 8)), (Attention, (1, 8, 8)), (Twice, (2, 9, 9))]


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_8_bit_is_close_to_float(make, shape):
    torch.manual_seed(0)
    x = pictures(32, *shape)
    model = trained_statistics(make(), x)
    layers = describe_layers(model, shape)
    quantized = build_quantized(model, layers, uniform(layers, 8, 8), x)
    expected = model(x.clone())
    assert (quantized(x) - expected).norm() < 0.05 * (expected - expected.mean(0)).norm()


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_a_float_policy_is_the_float_model_exactly(make, shape):
    model, x = make().eval(), pictures(8, *shape)
    layers = describe_layers(model, shape)
    quantized = build_quantized(model, layers, uniform(layers, "float", "float"), x)
    assert torch.equal(quantized(x), model(x.clone()))
    assert set(quantized.state_dict()) == {name for name in model.state_dict() if not name.startswith("unused")}


def test_fewer_bits_are_further_from_float(residual):
    model, layers, x = residual
    errors = [(build_quantized(model, layers, uniform(layers, b, b), x)(x) - model(x)).norm() for b in (8, 6, 4, 2)]
    assert all(finer < coarser for finer, coarser in itertools.pairwise(errors))


def test_only_the_named_side_of_a_layer_is_quantized(residual):
    model, layers, x = residual
    policy = uniform(layers, "float", "float") | {"conv1": (4, "float"), "fc": ("float", 4)}
    quantized = build_quantized(model, layers, policy, x)
    found = [name for name, module in quantized.named_modules() if isinstance(module, Quantizer)]
    assert sorted(found) == ["activation_quantizers.mean", "conv1.weight_quantizer"]


def test_weights_have_at_most_two_to_the_num_bits_levels_per_channel(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 3, 8), x)
    conv = quantized.get_submodule("conv2")
    assert conv.weight_quantizer.scale.shape == (8, 1, 1, 1)
    assert max(len(row.unique()) for row in conv.weight_quantizer(conv.weight)) <= 8


def test_per_tensor_weights_have_one_scale(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, 4), x, per_channel=False)
    assert quantized.get_submodule("fc.weight_quantizer").scale.shape == ()


def test_the_sign_comes_from_calibration(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, 4), x)
    signs = {name: bool(q.signed) for name, q in quantized.activation_quantizers.named_children()}
    assert signs == {"x": True, "relu": False, "relu_1": False, "mean": False}
    shifted = build_quantized(model, layers, uniform(layers, 4, 4), x.abs())
    assert not bool(shifted.get_submodule("activation_quantizers.x").signed)


def test_every_reader_of_a_quantized_output_reads_the_same_tensor():
    model, x = resnet8(4, 1, 4).eval(), pictures(8, 1, 8, 8)
    layers = describe_layers(model, (1, 8, 8))
    graph = build_quantized(model, layers, uniform(layers, 4, 4), x).graph
    relu = next(node for node in graph.nodes if node.name == "relu")
    (output_quantizer,) = relu.users
    assert {user.name for user in output_quantizer.users} == {"activation_quantizers_relu", "add"}


def test_a_quantized_network_comes_back_bit_for_bit_from_safetensors(residual):
    model, layers, x = residual
    policy = uniform(layers, 3, 5) | {"fc": ("float", "float"), "stem": (8, 8)}
    quantized = build_quantized(model, layers, policy, x)
    loaded = load_quantized(Residual(), layers, policy, load(save(save_quantized(quantized))))
    assert torch.equal(loaded(x), quantized(x))
    assert all(torch.equal(tensor, save_quantized(loaded)[name]) for name, tensor in save_quantized(quantized).items())


def test_a_network_of_another_policy_is_refused(residual):
    model, layers, x = residual
    tensors = save_quantized(build_quantized(model, layers, uniform(layers, "float", 4), x))
    with pytest.raises(MixbitError, match=r"weight_quantizer\.scale: missing from the saved network"):
        load_quantized(model, layers, uniform(layers, 4, 4), tensors)
    with pytest.raises(MixbitError, match=r"unknown to the model"):
        load_quantized(model, layers, uniform(layers, "float", "float"), tensors)


def test_the_float_model_is_left_as_it_was(residual):
    model, layers, x = residual
    before = copy.deepcopy(model.state_dict())
    quantized = build_quantized(model, layers, uniform(layers, 2, 2), x)
    with torch.no_grad():
        quantized.get_submodule("conv1").weight.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert set(before) <= set(quantized.state_dict())


def test_a_copy_computes_the_same_and_is_independent(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, 4), x)
    other = copy.deepcopy(quantized)
    assert torch.equal(other(x), quantized(x))
    with torch.no_grad():
        other.get_submodule("activation_quantizers.x").scale.mul_(2)
    assert not torch.equal(other(x), quantized(x))


def test_building_twice_gives_the_same_bytes(residual):
    model, layers, x = residual
    one, two = (build_quantized(model, layers, uniform(layers, 4, 4), [x[:16], x[16:]]) for _ in range(2))
    assert save(save_quantized(one)) == save(save_quantized(two))


def test_all_parameters_train_and_scales_stay_positive(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, 4), x).train()
    quantized(x).square().sum().backward()
    assert not [name for name, p in quantized.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.sub_(10 * parameter.abs())
    clamp_scales_(quantized)
    assert min(p.min() for name, p in quantized.named_parameters() if name.endswith("scale")) > 0


def test_a_policy_that_misses_or_invents_layers_is_refused(residual):
    model, layers, x = residual
    policy = uniform(layers, 4, 4) | {"conv9": (4, 4)}
    del policy["fc"]
    with pytest.raises(MisuseError, match="no entry for fc; no such layer: conv9, expected the 5 layers"):
        build_quantized(model, layers, policy, x)


def test_nan_during_calibration_names_the_tensor(residual):
    model, layers, x = residual
    model.stem.weight.data[0] = float("inf")
    with pytest.raises(MixbitError, match=r"relu: NaN or infinity in this tensor"):
        build_quantized(model, layers, uniform(layers, 4, 4), x)


def test_the_weight_of_a_layer_is_what_its_quantizer_says(residual):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, "float"), x)
    fc = quantized.get_submodule("fc")
    weight = fake_quantize(fc.weight, fc.weight_quantizer.scale, -8, 7, 1.0)
    assert torch.equal(fc(x[:, 0]), torch.nn.functional.linear(x[:, 0], weight, fc.bias))


@pytest.mark.gpu
def test_a_quantized_network_is_built_on_the_device_of_the_model(residual):
    model, layers, x = residual
    quantized = build_quantized(model.cuda(), layers, uniform(layers, 4, 4), x)
    assert {tensor.device.type for tensor in quantized.state_dict().values()} == {"cuda"}
    on_cpu = load_quantized(Residual(), layers, uniform(layers, 4, 4), save_quantized(quantized))
    assert (on_cpu(x) - quantized(x.cuda()).cpu()).norm() < 0.1 * on_cpu(x).norm()


def test_the_network_is_built_in_eval_mode(residual):
    model, layers, x = residual
    quantized = build_quantized(model.train(), layers, uniform(layers, 4, 4), x)
    assert not any(module.training for module in quantized.modules())


def test_while_exporting_every_quantizer_leaves_a_marker(residual, monkeypatch):
    model, layers, x = residual
    quantized = build_quantized(model, layers, uniform(layers, 4, 3), x)
    left = []

    def symbolic(operation, inputs, attrs, **_):
        left.append((operation, *attrs.values()))
        return inputs[0]

    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    monkeypatch.setattr(torch.onnx.ops, "symbolic", symbolic)
    quantized(x)
    assert left[:2] == [
        ("mixbit::FakeQuant", 3, 1, -1, "activation_quantizers.x"),
        ("mixbit::FakeQuant", 4, 1, 0, "stem.weight_quantizer"),
    ]
    assert len(left) == 5 + 4 + 3

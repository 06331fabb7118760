import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixbit.errors import MisuseError
from mixbit.quantizers.lsq import (
    MIN_SCALE,
    MultiQuantizer,
    Quantizer,
    clamp_scales_,
    fake_quantize,
    initial_scale,
    quant_range,
)

# (value, d/dx, d/dscale) at quant_min -4, quant_max 3, scale 1: clip, then round.
CLIP_THEN_ROUND = [
    (-9.0, 0, -4),
    (-4.2, 0, -4),
    (-4.0, 1, 0),
    (-1.3, 1, 0.3),
    (0.5, 1, -0.5),
    (1.5, 1, 0.5),
    (2.9, 1, 0.1),
    (3.0, 1, 0),
    (3.2, 0, 3),
    (3.6, 0, 3),
]
bits = st.integers(2, 8)
signs = st.booleans()
seeds = st.integers(0, 2**31)
scales = st.floats(1e-3, 1e3)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_gradients(x, scale, num_bits, signed, *, grad_scale=1.0, grad=None):
    x, scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    out = fake_quantize(x, scale, *quant_range(num_bits, signed), grad_scale)
    out.backward(torch.ones_like(out) if grad is None else grad)
    return out.detach(), x.grad, scale.grad


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_the_range_has_two_to_the_num_bits_codes(num_bits):
    for signed in (True, False):
        quant_min, quant_max = quant_range(num_bits, signed)
        assert quant_max - quant_min + 1 == 2**num_bits
        assert (quant_min < 0) == signed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("value", "to_x", "to_scale"), CLIP_THEN_ROUND)
def test_gradients_are_those_of_clip_then_round(value, to_x, to_scale, dtype):
    _, grad_x, grad_scale = with_gradients(torch.tensor([value], dtype=dtype), torch.tensor(1.0, dtype=dtype), 3, True)
    assert grad_x.item() == to_x
    assert grad_scale.item() == pytest.approx(to_scale, abs=1e-6)


def test_halves_round_to_even():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert fake_quantize(x, torch.tensor(1.0), -4, 3, 1.0).tolist() == [-2, -2, 0, 0, 2, 2]


def test_values_are_divided_by_the_scale_not_multiplied_by_its_inverse():
    scale = torch.tensor(0.1)
    x = (torch.arange(-128, 127) + 0.5) * scale
    expected = torch.round(torch.clamp(x / scale, -128, 127)) * scale
    assert torch.equal(fake_quantize(x, scale, -128, 127, 1.0), expected)


@given(seeds, bits, signs, scales)
def test_quantizing_twice_changes_nothing(seed, num_bits, signed, scale):
    scale = torch.tensor(scale, dtype=torch.float64)
    once = fake_quantize(normal(seed, 64) * scale * 9, scale, *quant_range(num_bits, signed), 1.0)
    assert torch.equal(fake_quantize(once, scale, *quant_range(num_bits, signed), 1.0), once)


@given(seeds, bits, signs, scales)
def test_inside_the_range_the_error_is_at_most_half_a_step(seed, num_bits, signed, scale):
    quant_min, quant_max = quant_range(num_bits, signed)
    scale = torch.tensor(scale, dtype=torch.float64)
    x = (torch.sigmoid(normal(seed, 64)) * (quant_max - quant_min) + quant_min) * scale
    error = (fake_quantize(x, scale, quant_min, quant_max, 1.0) - x).abs().max()
    assert error <= scale / 2 * (1 + 1e-9)


@given(seeds, bits, signs, scales)
def test_there_are_at_most_two_to_the_num_bits_levels_on_the_grid(seed, num_bits, signed, scale):
    scale = torch.tensor(scale, dtype=torch.float64)
    codes = fake_quantize(normal(seed, 4096) * scale * 200, scale, *quant_range(num_bits, signed), 1.0) / scale
    assert len(codes.round().unique()) <= 2**num_bits
    assert torch.allclose(codes, codes.round(), atol=1e-9)


@given(seeds, bits)
def test_a_symmetric_range_gives_an_odd_function(seed, num_bits):
    x, scale, quant_max = normal(seed, 64) * 3, torch.tensor(0.3, dtype=torch.float64), 2 ** (num_bits - 1) - 1
    there = fake_quantize(x, scale, -quant_max, quant_max, 1.0)
    assert torch.equal(fake_quantize(-x, scale, -quant_max, quant_max, 1.0), -there)


@given(seeds, bits, signs)
def test_gradients_equal_finite_differences_of_the_piecewise_formula(seed, num_bits, signed):
    x, grad, scale = normal(seed, 32) * 2, normal(seed + 1, 32), torch.tensor(0.37, dtype=torch.float64)
    clipped = (x / scale).clamp(*quant_range(num_bits, signed))
    inside, rounding_error = clipped == x / scale, clipped.round() - clipped

    def piecewise(x, scale):  # the rounding error and the side of the clip are held
        return torch.where(inside, (x / scale + rounding_error) * scale, clipped.round() * scale) * grad

    _, grad_x, grad_scale = with_gradients(x, scale, num_bits, signed, grad=grad)
    step = 1e-6
    slope_x = (piecewise(x + step, scale) - piecewise(x - step, scale)) / (2 * step)
    slope_scale = (piecewise(x, scale + step) - piecewise(x, scale - step)).sum() / (2 * step)
    assert torch.allclose(grad_x, slope_x, atol=1e-6)
    assert grad_scale.item() == pytest.approx(slope_scale.item(), abs=1e-5)


def unfused(x, scale, quant_min, quant_max, grad_scale):
    """Straight-through rounding and a scaled gradient, left to autograd."""
    scale = scale * grad_scale + (scale - scale * grad_scale).detach()
    clipped = (x / scale).clamp(quant_min, quant_max)
    return (clipped + (clipped.round() - clipped).detach()) * scale


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every_second": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "expanded": lambda x: x[:, :, :, :1].expand_as(x),
}
layouts = st.sampled_from(list(LAYOUTS))


@settings(deadline=None, max_examples=60)
@given(seeds, bits, signs, st.sampled_from([None, 0, 1]), st.tuples(layouts, layouts))
def test_gradients_equal_those_of_autograd_without_fusion(seed, num_bits, signed, channel_dim, layout):
    x, grad = (LAYOUTS[layout[i]](normal(seed + i, 3, 4, 5, 6)) for i in (0, 1))
    scale = initial_scale(x, num_bits, signed, channel_dim)
    expected_x, expected_scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    expected = unfused(expected_x, expected_scale, *quant_range(num_bits, signed), 0.25)
    expected.backward(grad)
    out, grad_x, grad_of_scale = with_gradients(x, scale, num_bits, signed, grad_scale=0.25, grad=grad)
    assert torch.allclose(out, expected.detach(), rtol=1e-12)
    assert torch.allclose(grad_x, expected_x.grad, rtol=1e-12)
    assert torch.allclose(grad_of_scale, expected_scale.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_bits", [2, 8])
def test_the_gradient_of_a_big_tensors_scale_keeps_three_digits_in_single_precision(num_bits):
    x, grad = (normal(seed, 64, 16, 32, 32) for seed in (0, 1))
    scale = initial_scale(x, num_bits, True)
    exact = with_gradients(x, scale, num_bits, True, grad=grad)[2]
    single = with_gradients(x.float(), scale.float(), num_bits, True, grad=grad.float())[2]
    assert single.item() == pytest.approx(exact.item(), rel=1e-3)


def test_a_second_derivative_is_refused():
    x = normal(0, 8).requires_grad_()
    first = torch.autograd.grad(fake_quantize(x, torch.tensor(0.1), -8, 7, 1.0).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


@given(seeds, bits, st.integers(1, 5), st.sampled_from([0, 1]))
def test_per_channel_equals_a_loop_over_channels(seed, num_bits, channels, channel_dim):
    x = normal(seed, channels, 6, 2, 2) if channel_dim == 0 else normal(seed, 6, channels, 2, 2)
    scale = initial_scale(x, num_bits, True, channel_dim)
    out, grad_x, grad_scale = with_gradients(x, scale, num_bits, True, grad_scale=0.5)
    for channel in range(channels):
        part = x.select(channel_dim, channel)
        alone = with_gradients(part, scale.flatten()[channel], num_bits, True, grad_scale=0.5)
        assert torch.equal(out.select(channel_dim, channel), alone[0])
        assert torch.equal(grad_x.select(channel_dim, channel), alone[1])
        assert grad_scale.flatten()[channel].item() == pytest.approx(alone[2].item())


def test_the_gradient_of_the_scale_is_scaled_by_elements_and_range():
    x = normal(0, 8, 3, 2, 2)
    for channel_dim, elements in ((None, 96), (0, 12)):
        scale = initial_scale(x, 4, True, channel_dim)
        quantizer = Quantizer(scale, num_bits=4, signed=True, channel_dim=channel_dim)
        quantizer(x).sum().backward()
        expected = with_gradients(x, scale, 4, True)[2] / math.sqrt(elements * 7)
        assert torch.allclose(quantizer.scale.grad, expected)


def test_no_gradient_is_computed_for_what_needs_none():
    x, scale = normal(0, 8), torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    fake_quantize(x, scale, -8, 7, 1.0).sum().backward()
    assert x.grad is None
    assert scale.grad is not None


@given(seeds, bits, signs)
def test_the_first_scale_is_that_of_lsq(seed, num_bits, signed):
    x = normal(seed, 4, 5)
    expected = 2 * x.abs().mean() / math.sqrt(quant_range(num_bits, signed)[1])
    assert torch.allclose(initial_scale(x, num_bits, signed), expected)


def test_the_first_scale_of_a_zero_channel_is_that_of_the_largest():
    x = torch.stack([torch.zeros(4), torch.ones(4), torch.full((4,), 2.0)])
    scale = initial_scale(x, 4, True, channel_dim=0)
    assert scale.shape == (3, 1)
    assert scale[0] == scale[2] > scale[1]
    assert initial_scale(torch.zeros(3), 4, True) == 1


def test_the_sign_survives_a_state_dict():
    signed = Quantizer(torch.tensor(0.1), num_bits=4, signed=True)
    unsigned = Quantizer(torch.tensor(1.0), num_bits=4, signed=False)
    unsigned.load_state_dict(signed.state_dict())
    assert (unsigned.quant_min, unsigned.quant_max) == (-8, 7)
    assert torch.equal(unsigned(torch.tensor([-0.3])), signed(torch.tensor([-0.3])))


def test_float_passes_through_a_multi_quantizer_and_strangers_are_refused():
    quantizer = MultiQuantizer({2: torch.tensor(0.5), 4: torch.tensor(0.1)}, signed=True)
    x = normal(0, 9)
    assert quantizer(x) is x
    quantizer.num_bits = 2
    assert len(quantizer(x).unique()) <= 4
    with pytest.raises(MisuseError, match=r"expected .*2, 4.*got 3"):
        quantizer.num_bits = 3


def test_only_the_scale_in_use_gets_a_gradient():
    quantizer = MultiQuantizer({2: torch.tensor(0.5), 4: torch.tensor(0.1)}, signed=True)
    quantizer.num_bits = 4
    quantizer(normal(0, 9, dtype=torch.float32)).square().sum().backward()
    assert quantizer.scale(4).grad.abs() > 0
    assert quantizer.scale(2).grad is None


def test_scales_are_clamped_from_below_only():
    model = nn.ModuleList(
        [
            Quantizer(torch.tensor([[-1.0], [5e4]]), num_bits=4, signed=True, channel_dim=0),
            MultiQuantizer({2: torch.tensor(-1.0)}, signed=True),
        ]
    )
    clamp_scales_(model)
    assert model[0].scale.flatten().tolist() == pytest.approx([MIN_SCALE, 5e4])
    assert model[1].scale(2).item() == pytest.approx(MIN_SCALE)


@settings(deadline=None, max_examples=20)
@given(seeds, bits, signs)
def test_channels_last_inputs_give_the_same_values_and_gradients(seed, num_bits, signed):
    x, grad = normal(seed, 2, 3, 4, 4), normal(seed + 1, 2, 3, 4, 4)
    plain = with_gradients(x, torch.tensor(0.2, dtype=torch.float64), num_bits, signed, grad=grad)
    last = with_gradients(
        x.to(memory_format=torch.channels_last), torch.tensor(0.2, dtype=torch.float64), num_bits, signed, grad=grad
    )
    assert torch.equal(plain[0], last[0])
    assert torch.equal(plain[1], last[1])
    assert plain[2].item() == pytest.approx(last[2].item())


@pytest.mark.gpu
@pytest.mark.parametrize("channel_dim", [None, 0])
def test_cuda_gives_the_values_of_the_cpu(channel_dim):
    x = normal(0, 16, 8, 3, 3, dtype=torch.float32)
    scale = initial_scale(x, 4, True, channel_dim)
    here, there = with_gradients(x, scale, 4, True), with_gradients(x.cuda(), scale.cuda(), 4, True)
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1], there[1].cpu())
    assert torch.allclose(here[2], there[2].cpu(), rtol=1e-4)

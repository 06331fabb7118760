import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbit.quantizers.lsq import fake_quantize, initial_scale, quant_range
from mixbit.quantizers.mse import mse_scale


def error(x, scale, num_bits, signed):
    return (fake_quantize(x, scale, *quant_range(num_bits, signed), 1.0) - x).square().sum()


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
def test_the_scale_is_never_worse_than_lsq_or_clipping_nothing(seed, num_bits, signed):
    x = normal(seed, 200) if signed else normal(seed, 200).abs()
    found = error(x, mse_scale(x, num_bits, signed), num_bits, signed)
    quant_min, quant_max = quant_range(num_bits, signed)
    unclipped = max(x.max() / quant_max, x.min() / quant_min if signed else 0)
    assert found <= error(x, initial_scale(x, num_bits, signed), num_bits, signed)
    assert found <= error(x, unclipped, num_bits, signed) * (1 + 1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_per_channel_equals_a_loop_over_channels(seed, num_bits):
    x = normal(seed, 3, 4, 2, 2)
    scale = mse_scale(x, num_bits, True, channel_dim=0)
    assert scale.shape == (3, 1, 1, 1)
    for channel in range(3):
        assert scale[channel].item() == pytest.approx(mse_scale(x[channel], num_bits, True).item())


def test_values_on_a_grid_are_kept_exactly():
    x = torch.arange(-8, 8, dtype=torch.float64).repeat(50) * 0.25
    assert error(x, mse_scale(x, 4, True), 4, True) <= 1e-3 * x.square().sum()


@pytest.mark.parametrize("signed", [True, False])
def test_a_zero_tensor_has_a_positive_scale(signed):
    assert mse_scale(torch.zeros(5), 4, signed) > 0


def test_the_scale_is_the_same_twice_and_for_a_tensor_that_is_thinned():
    x = torch.randn(1 << 19, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mse_scale(x, 4, True), mse_scale(x, 4, True))
    assert mse_scale(x, 4, True).item() == pytest.approx(mse_scale(x[: 1 << 17], 4, True).item(), rel=0.05)

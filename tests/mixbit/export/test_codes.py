import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixbit.export.codes import (
    LARGEST_SHIFTED,
    bias_codes,
    pack_planes,
    place_values,
    stretch_factor,
    weight_codes,
    weight_shift,
)
from mixbit.quantizers.lsq import fake_quantize, quant_range

WIDTHS = st.integers(2, 8)


@given(num_bits=WIDTHS, seed=st.integers(0, 2**32 - 1), count=st.integers(1, 70))
def test_planes_hold_the_codes(num_bits, seed, count):
    low, high = quant_range(num_bits, signed=True)
    codes = np.random.default_rng(seed).integers(low, high + 1, count).astype(np.int8)
    bits = np.unpackbits(pack_planes(codes, num_bits)[:, :, 0], axis=1, bitorder="little")
    assert ((bits[:, :, None] * place_values(num_bits, 0)).sum(0)[:count, 0] == codes).all()


@given(num_bits=WIDTHS, seed=st.integers(0, 2**32 - 1))
def test_weight_codes_times_scale_is_pytorchs_fake_quantization(num_bits, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, scale = torch.randn(3, 5, generator=generator), torch.rand(3, 1, generator=generator) + 0.01
    low, high = quant_range(num_bits, signed=True)
    codes = weight_codes(weight.numpy(), scale.numpy().reshape(-1), low, high)
    assert (codes.astype(np.float32) * scale.numpy() == fake_quantize(weight, scale, low, high, 1.0).numpy()).all()


def test_half_steps_round_to_even():
    assert weight_codes(np.array([0.5, 1.5, 2.5], np.float32), np.float32(1), -4, 3).tolist() == [0, 2, 2]


def test_shifted_weight_codes_stay_in_7_bits_and_stretched_activations_in_a_byte():
    for num_bits in range(2, 8):
        assert 2 ** (num_bits - 1) << weight_shift(num_bits) == LARGEST_SHIFTED
        assert 127 < (2**num_bits - 1) * stretch_factor(num_bits) <= 255
    assert (weight_shift(8), stretch_factor(8)) == (0, 1)


def test_bias_codes_follow_a_negative_scale():
    assert bias_codes(np.array([1.0, -1.0]), np.array([-0.1, 0.1])).tolist() == [-10, -10]

"""Integer codes: the arithmetic that both lowerings and the checks share. numpy only."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Largest |code| of a shifted weight: byte kernels without VNNI add two products of 255 * 64 in 16 bits.
LARGEST_SHIFTED = 64


def weight_codes(weight: Array, scale: Array, quant_min: int, quant_max: int) -> npt.NDArray[np.int8]:
    """Codes of a weight, int8, in float32 arithmetic as PyTorch computes it: divide, clip, round half to even.

    Args:
        weight: float32 [C, ...].
        scale: float32 [] or [C].
        quant_min: smallest code.
        quant_max: largest code.
    """
    ratio = np.asarray(weight, np.float32) / broadcast(np.asarray(scale, np.float32), weight.ndim)
    return np.rint(np.clip(ratio, quant_min, quant_max)).astype(np.int8)


def broadcast(per_channel: Array, ndim: int) -> Array:
    """[C] shaped to broadcast over dimension 0 of `ndim` dimensions; [] stays."""
    return per_channel.reshape(-1, *[1] * (ndim - 1)) if per_channel.ndim else per_channel


def weight_shift(num_bits: int) -> int:
    """Bits by which weight codes are stored shifted left, so that the int32 bias has finer steps.

    Codes times 2^k with scale / 2^k are the same weights; |code| stays <= `LARGEST_SHIFTED`.
    """
    return max(0, LARGEST_SHIFTED.bit_length() - num_bits)


def stretch_factor(num_bits: int) -> int:
    """The largest whole factor by which activation codes of num_bits still fit a byte; 1 for 8 bits.

    Example:
        >>> [stretch_factor(num_bits) for num_bits in range(2, 9)]
        [85, 36, 17, 8, 4, 2, 1]
    """
    return 255 // ((1 << num_bits) - 1)


def bias_codes(bias: Array, scale: Array) -> npt.NDArray[np.int32]:
    """int32 codes of a float bias, [C] each; `scale` may be negative but not zero.

    In float32, as a runtime computes them from a stored float bias. Beyond 2^22 steps float32 has no room for half a
    step; there a whole one is less than the rounding of the bias itself.
    """
    codes = np.rint(np.asarray(bias, np.float32) / np.asarray(scale, np.float32)).astype(np.float64)
    return np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)


def pack_planes(codes: npt.NDArray[np.int8], num_bits: int) -> npt.NDArray[np.uint8]:
    """Bit planes, lowest bit first: uint8 [num_bits, ceil(n / 8), 1], eight codes to a byte, padded with zeros.

    Two's complement: the value is sum_j place_j * plane_j with place = 1, 2, ..., -2^(num_bits - 1).
    """
    flat = codes.reshape(-1).astype(np.int16) & ((1 << num_bits) - 1)
    planes = (flat[None, :] >> np.arange(num_bits)[:, None]) & 1
    return np.packbits(planes.astype(np.uint8), axis=1, bitorder="little")[:, :, None]


def place_values(num_bits: int, shift: int) -> npt.NDArray[np.int32]:
    """What a bit of each plane is worth after the shift, int32 [num_bits, 1, 1]."""
    places = [1 << (bit + shift) for bit in range(num_bits - 1)] + [-(1 << (num_bits - 1 + shift))]
    return np.array(places, np.int32).reshape(-1, 1, 1)

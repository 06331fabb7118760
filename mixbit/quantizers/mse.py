"""Step sizes of least squared error: a grid of clipping points below the largest value."""

import torch
from torch import Tensor

from mixbit.quantizers.lsq import initial_scale, positive, quant_range

# Fractions of the largest magnitude; 2 bit wants to clip hard, 8 bit hardly.
_CLIP_FRACTIONS = torch.linspace(0.1, 1.0, 37, dtype=torch.float64).tolist()
_MAX_SAMPLES = 1 << 17


@torch.no_grad()
def mse_scale(x: Tensor, num_bits: int, signed: bool, channel_dim: int | None = None) -> Tensor:
    """The step size with the least squared quantization error among LSQ's own and a grid of clipping points.

    The grid is our own design; a tie keeps the earlier candidate, LSQ's first. Per tensor, more than 2^17 values are
    thinned by a fixed stride.

    Args:
        x: float, any shape.
        num_bits: 2 to 8.
        signed: whether codes may be negative.
        channel_dim: one scale per index of this dimension; None for one scale.

    Returns:
        [] or, per_channel, [1, .., C, .., 1] with C at channel_dim; positive.
    """
    x = x.detach()
    rows = x.reshape(1, -1) if channel_dim is None else x.movedim(channel_dim, 0).reshape(x.shape[channel_dim], -1)
    if channel_dim is None and rows.shape[1] > _MAX_SAMPLES:
        # Odd, so that the stride does not walk along one column of a picture.
        rows = rows[:, :: (rows.shape[1] // _MAX_SAMPLES) | 1]
    best = _search(rows, num_bits, signed)
    if channel_dim is None:
        return best.reshape(())
    shape = [1] * x.ndim
    shape[channel_dim] = -1
    return best.reshape(shape)


def _search(rows: Tensor, num_bits: int, signed: bool) -> Tensor:
    quant_min, quant_max = quant_range(num_bits, signed)
    reach = rows.amax(1) / quant_max
    largest = positive(torch.maximum(reach, rows.amin(1) / quant_min) if signed else reach)
    best = initial_scale(rows, num_bits, signed, channel_dim=0).reshape(-1)
    least = _squared_error(rows, best, quant_min, quant_max)
    for fraction in _CLIP_FRACTIONS:
        candidate = largest * fraction
        error = _squared_error(rows, candidate, quant_min, quant_max)
        best = torch.where(error < least, candidate, best)
        least = torch.minimum(error, least)
    return best


def _squared_error(rows: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    scale = scale.reshape(-1, 1)
    return (rows / scale).clamp_(quant_min, quant_max).round_().mul_(scale).sub_(rows).square_().sum(1)

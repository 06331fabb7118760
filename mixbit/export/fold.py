"""BatchNorm folded into the layer before it: a multiplier and an offset per output channel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mixbit.export.codes import bias_codes
from mixbit.export.marker import constant
from mixbit.export.sixteen import LEAST_SCALE, snapped, snapped_scale

Array = npt.NDArray[Any]

# What float32 arithmetic may have added to a number that was settled on 16 bits, as a share of what it was made from.
ROUNDING = 2.0**-22
# A channel whose bias needs more steps than this has weights that no longer matter beside it (BatchNorm gamma near 0).
LARGEST_BIAS_CODE = 2**30
DEAD_CHANNEL_STEPS = 2**20


@dataclass(frozen=True)
class Affine:
    """y = multiplier * layer(x without bias) + bias, per output channel, float64 [C].

    Attributes:
        multiplier: gamma / sqrt(variance + eps), or 1.
        bias: a float16 or bfloat16 number in every channel where it was settled on these; `mixbit.models.settle`.
    """

    multiplier: Array
    bias: Array


@dataclass(frozen=True)
class Integers:
    """A layer's constants for an int8 kernel.

    Attributes:
        codes: int8, as the weight; channels in `dead` are zero.
        scale: float32 [C], of the shifted codes; negative where BatchNorm's gamma is.
        bias: int32 [C], or None.
        bias_scale: float32 [C], activation scale * scale.
    """

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32] | None
    bias_scale: npt.NDArray[np.float32]


def batchnorm_after(layer: ir.Node) -> ir.Node | None:
    """The BatchNorm that alone reads a layer's output, if there is one."""
    output = layer.outputs[0]
    readers = [usage.node for usage in output.uses()]
    if output.is_graph_output() or len(readers) != 1 or readers[0].op_type != "BatchNormalization":
        return None
    return readers[0] if all(value is not None and value.is_initializer() for value in readers[0].inputs[1:]) else None


def affine(bias: Array | None, batchnorm: ir.Node | None, channels: int) -> Affine | None:
    """Bias and BatchNorm of a layer as one affine map; None when there is neither."""
    if bias is None and batchnorm is None:
        return None
    bias = np.zeros(channels) if bias is None else bias.astype(np.float64)
    if batchnorm is None:
        return Affine(np.ones(channels), bias)  # settled or not: 16-bit numbers are float32 numbers
    gamma, beta, mean, variance = (constant(value).astype(np.float64) for value in batchnorm.inputs[1:5])
    multiplier = gamma / np.sqrt(variance + batchnorm.attributes["epsilon"].as_float())
    moved = multiplier * (bias - mean)
    slack = ROUNDING * (np.abs(beta) + np.abs(moved))
    return Affine(multiplier, snapped(beta + moved, slack))


def integers(
    codes: npt.NDArray[np.int8],
    weight_scale: Array,
    activation_scale: np.float32,
    map_: Affine | None,
    shift: int = 0,
) -> Integers:
    """Fold an affine map into scale and bias; the codes stay, so nothing is quantized twice.

    Args:
        codes: int8 [C, ...].
        weight_scale: float32 [] or [C], of the codes.
        activation_scale: of the layer's input as the kernel sees it (stretched).
        map_: bias and BatchNorm.
        shift: bits by which the kernel sees the codes shifted left.
    """
    channels = codes.shape[0]
    scale = np.broadcast_to(np.asarray(weight_scale, np.float64).reshape(-1), (channels,))
    if map_ is None:
        folded = (scale / (1 << shift)).astype(np.float32)
        return Integers(codes, folded, None, activation_scale * folded)
    folded = (scale * map_.multiplier).astype(np.float32)
    folded = (snapped_scale(folded, ROUNDING * np.abs(folded)) / (1 << shift)).astype(np.float32)
    dead = np.abs(map_.bias) > LARGEST_BIAS_CODE * np.abs(folded.astype(np.float64) * activation_scale)
    dead |= np.abs(folded * activation_scale) < np.finfo(np.float32).tiny
    if dead.any():
        codes = codes.copy()
        codes[dead] = 0
        live = np.maximum(np.abs(map_.bias), np.finfo(np.float32).eps) / DEAD_CHANNEL_STEPS / activation_scale
        # Any will do: one that 16 bits hold.
        folded[dead] = np.maximum(2.0 ** np.rint(np.log2(live[dead])), LEAST_SCALE / (1 << shift))
    bias_scale = activation_scale * folded
    return Integers(codes, folded, bias_codes(map_.bias, bias_scale), bias_scale)

"""Per-channel scales and biases settled on 16-bit numbers, so that a file can hold them in 16 bits and lose nothing.

Our own design. A kernel multiplies by weight scale * gamma / sqrt(variance + eps) and adds one bias per output channel.
Here gamma and beta, or without BatchNorm the layer's own step sizes and bias, move until those two are 16-bit numbers.
What is simulated from then on is what the file holds.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from mixbit.models.nodes import is_batchnorm, layer_calls, module_of

# Largest of a layer's numbers for which float16 is at its best: below, its steps are more than 2^-12 of that largest.
FLOAT16_RANGE = (2.0**-13, 65504.0)
# In which scales are 16-bit numbers: those of weights are small.
SCALE_UNIT = 2.0**-12


@torch.no_grad()
def settle_(quantized: fx.GraphModule) -> None:
    """Settle every quantized layer of a network under one policy, in place.

    Scales / `SCALE_UNIT` and biases become float16 numbers where the layer's largest lies in `FLOAT16_RANGE`: each
    moves by at most 2^-11 of itself, or by less than 2^-11 of the layer's largest. Otherwise they become bfloat16
    numbers, which moves each by at most 2^-8 of itself. A BatchNorm that two layers share, or one without gamma, stays:
    such a layer is stored in 32 bits.

    Args:
        quantized: from `build_quantized`, trained and with its final BatchNorm statistics.
    """
    calls = [(layer, _batchnorm_after(quantized, node)) for layer, node in _quantized_calls(quantized)]
    for layer in dict.fromkeys(layer for layer, batchnorm in calls if batchnorm is None):
        _settle_layer_(layer)
    folded = dict.fromkeys((layer, batchnorm) for layer, batchnorm in calls if batchnorm is not None)
    for layer, batchnorm in folded:
        shared = sum(other is batchnorm for _, other in folded) > 1
        if not shared and batchnorm.weight is not None and batchnorm.running_var is not None:
            _settle_batchnorm_(layer, batchnorm)


def sixteen_bits(values: Tensor) -> Tensor:
    """The nearest 16-bit numbers to those of one layer, float64, shaped as values, all of one type."""
    low, high = FLOAT16_RANGE
    largest = float(values.abs().max()) if values.numel() else 0.0
    return values.to(torch.float16 if low <= largest <= high or largest == 0 else torch.bfloat16).double()


def _quantized_calls(graph: fx.GraphModule) -> Iterator[tuple[Any, fx.Node]]:
    for _, layer, node in layer_calls(graph):
        if hasattr(layer, "weight_quantizer"):
            yield layer, node


def _batchnorm_after(graph: fx.GraphModule, node: fx.Node) -> Any:
    """The BatchNorm module that the exporter folds into this call, None when there is none."""
    if len(node.users) != 1 or not (isinstance(module_of(graph, node), nn.Conv2d) or len(node.meta["shape"]) == 2):
        return None
    module = module_of(graph, next(iter(node.users)))
    return module if is_batchnorm(module) else None


def _settle_layer_(layer: Any) -> None:
    scale = layer.weight_quantizer.scale
    scale.copy_(_settled_scale(scale.double()))
    if layer.bias is not None:
        layer.bias.copy_(sixteen_bits(layer.bias.double()))


def _settle_batchnorm_(layer: Any, batchnorm: Any) -> None:
    scale = layer.weight_quantizer.scale.double().reshape(-1)
    deviation = (batchnorm.running_var.double() + batchnorm.eps).sqrt()
    batchnorm.weight.copy_(_settled_scale(scale * batchnorm.weight.double() / deviation) * deviation / scale)
    mean = batchnorm.running_mean.double()
    if layer.bias is not None:
        mean = mean - layer.bias.double()
    offset = batchnorm.weight.double() / deviation * mean
    batchnorm.bias.copy_(sixteen_bits(batchnorm.bias.double() - offset) + offset)


def _settled_scale(scale: Tensor) -> Tensor:
    return sixteen_bits(scale / SCALE_UNIT) * SCALE_UNIT

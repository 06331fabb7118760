"""Layers whose weight passes a quantizer, and BatchNorm with private statistics per num_bits."""

import copy
from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixbit.policy import NumBits


class QuantizedConv2d(nn.Conv2d):
    """A Conv2d that computes with its quantized weight."""

    weight_quantizer: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        """[N, in_channels, H, W] -> [N, out_channels, H', W']."""
        return self._conv_forward(input, self.weight_quantizer(self.weight), self.bias)  # type: ignore[no-any-return]


class QuantizedLinear(nn.Linear):
    """A Linear that computes with its quantized weight."""

    weight_quantizer: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        """[..., in_features] -> [..., out_features]."""
        return F.linear(input, self.weight_quantizer(self.weight), self.bias)


class PrivateBatchNorm(_BatchNorm):
    """BatchNorm with parameters and statistics of its own for each num_bits; the plain names hold those of `float`.

    Noise of 2 bit and of 6 bit would otherwise share one mean and variance (as in switchable networks, Yu et al.
    2019, https://arxiv.org/abs/1812.08928).
    """

    private: nn.ModuleDict
    num_bits: NumBits

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        """Normalize [N, C, ...] with what belongs to the num_bits in use."""
        if self.num_bits == "float":
            return super().forward(input)
        return self.private[str(self.num_bits)](input)  # type: ignore[no-any-return]

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the parent's name
        """Any number of dimensions: the float model has run."""


# The class is swapped in place: every field, hook and parameter name stays what it was in the float model.
def carry_weight_quantizer_(layer: Any, quantizer: nn.Module) -> None:
    """Make a Conv2d or Linear compute with `quantizer(weight)`."""
    layer.__class__ = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
    layer.weight_quantizer = quantizer.train(layer.training)


def make_private_(batchnorm: Any, num_bits: Iterable[NumBits]) -> None:
    """Give a BatchNorm a copy of itself per num_bits other than `float`, which stays the BatchNorm itself."""
    batchnorm.private = nn.ModuleDict({str(bits): copy.deepcopy(batchnorm) for bits in num_bits if bits != "float"})
    batchnorm.__class__ = PrivateBatchNorm
    batchnorm.num_bits = "float"

"""Pictures and weights in memory with the channel last, the order in which a CPU computes convolutions fastest."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def channels_last(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Hold the weights of convolutions channels last, which the tensors between layers follow; undone on leaving.

    Shapes and parameters stay, sums may round differently. A model on another device than a CPU keeps its order, and
    so does one whose forward needs the other (`view` on a picture).

    Args:
        model: any network.
        inputs: a few model inputs, float32 [N, C, H, W], to try forward on.
    """
    weights = list(dict.fromkeys(module.weight for module in model.modules() if isinstance(module, nn.Conv2d)))
    strides = [weight.stride() for weight in weights]
    last = [weight.data.to(memory_format=torch.channels_last).stride() for weight in weights]
    if inputs.device.type == "cpu" and strides != last:
        _lay_(weights, last)
        if not _runs(model, inputs):
            _lay_(weights, strides)
    try:
        yield
    finally:
        _lay_(weights, strides)


def _lay_(weights: Iterable[Tensor], strides: Iterable[tuple[int, ...]]) -> None:
    for weight, stride in zip(weights, strides, strict=True):
        if weight.stride() != stride:
            empty = torch.empty_strided(weight.shape, stride, dtype=weight.dtype, device=weight.device)
            weight.data = empty.copy_(weight.data)


def _runs(model: nn.Module, inputs: Tensor) -> bool:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(inputs)
    except RuntimeError:
        return False
    else:
        return True
    finally:
        model.train(was_training)

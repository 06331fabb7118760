"""A float network in which one tensor at a time can be quantized, to tell what that alone does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, fx, nn

from mixbit.models.calibration import as_batch, observe
from mixbit.models.graph import trace
from mixbit.models.placement import ACTIVATIONS, Spot, insert_
from mixbit.models.quantized_layers import carry_weight_quantizer_
from mixbit.models.supernet import tensors_read
from mixbit.policy import NumBits
from mixbit.quantizers.lsq import MultiQuantizer
from mixbit.quantizers.mse import mse_scale


def build_switchable(
    model: nn.Module,
    layers: Mapping[str, Any],
    num_bits: Iterable[NumBits],
    calibration: Tensor | Sequence[Tensor],
    *,
    per_channel: bool = True,
) -> fx.GraphModule:
    """A copy of model in eval mode, all at `float`, that `mixbit.models.supernet.set_bits_` switches.

    Step sizes minimize the squared error, as those of `mixbit.models.quantize.build_quantized` do: weights' on the
    weights, activations' on what the float model computes on the calibration pictures. BatchNorms stay the float
    model's. Nothing of it can be trained.

    Args:
        model: the float model.
        layers: content of layers.json.
        num_bits: candidates, 2 to 8; `float` is always among them.
        calibration: normalized pictures [N, C, H, W], or a sequence of such batches.
        per_channel: one weight step size per output channel, else one per tensor.

    Raises:
        MixbitError: the model cannot be traced, or NaN or infinity during calibration.
    """
    graph = trace(model, layers["input_shape"])
    candidates = [bits for bits in num_bits if bits != "float"]
    reads, readers = tensors_read(graph)
    made: dict[fx.Node, nn.Module] = {}

    def make(node: fx.Node, value: Tensor) -> None:
        signed = bool((value < 0).any())
        made[node] = MultiQuantizer({b: mse_scale(value, b, signed) for b in candidates}, signed=signed)

    observe(graph, as_batch(calibration), readers, make)
    spots = [Spot(tensor, 8, ACTIVATIONS, tuple(nodes)) for tensor, nodes in readers.items()]
    insert_(graph, spots, [made[spot.tensor] for spot in spots])
    for name in reads:
        layer: Any = graph.get_submodule(name)
        scales = {
            b: mse_scale(layer.weight, b, signed=True, channel_dim=0 if per_channel else None) for b in candidates
        }
        carry_weight_quantizer_(layer, MultiQuantizer(scales, signed=True))
    graph.meta.update(reads=reads, batchnorms={}, candidates=candidates)
    return graph.requires_grad_(requires_grad=False)


def tensors_together(switchable: fx.GraphModule, readers: Sequence[str]) -> list[str]:
    """Names of the tensors that these layers read in any call, each once."""
    return list(dict.fromkeys(tensor for name in readers for tensor in switchable.meta["reads"][name]))


def tensor_quantizer(switchable: fx.GraphModule, tensor: str) -> MultiQuantizer:
    """The quantizer of a tensor that layers read."""
    found = switchable.get_submodule(f"{ACTIVATIONS}.{tensor}")
    assert isinstance(found, MultiQuantizer)
    return found


@torch.no_grad()
def change(quantizer: MultiQuantizer, x: Tensor, num_bits: int) -> Tensor:
    """Q(x) - x at num_bits, shaped as x; the quantizer is left at `float`."""
    quantizer.num_bits = num_bits
    try:
        return quantizer(x) - x  # type: ignore[no-any-return]
    finally:
        quantizer.num_bits = "float"


def squared_sum(x: Tensor) -> float:
    """Sum over all elements of x^2, in double precision."""
    return x.detach().square().sum(dtype=torch.float64).item()


@dataclass(frozen=True)
class Call:
    """One call of a layer: its name, the tensor that it read, by name and as it was, and what it made."""

    layer: str
    tensor: str
    read: Tensor
    output: Tensor


@contextmanager
def recorded(switchable: fx.GraphModule) -> Iterator[list[Call]]:
    """The calls of all layers in the forward pass that runs meanwhile, in execution order."""
    calls: list[Call] = []
    reads = {name: iter(tensors) for name, tensors in switchable.meta["reads"].items()}

    def record(name: str) -> Any:
        return lambda _, read, output: calls.append(Call(name, next(reads[name]), read[0], output))

    hooks = [switchable.get_submodule(name).register_forward_hook(record(name)) for name in reads]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def branches(switchable: fx.GraphModule, tensors: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What layers read of these tensors in the forward pass that runs meanwhile, in the order of `tensors`.

    Each is a branch of its own: what else reads the tensor does not depend on it.
    """
    read: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: read.setdefault(name, output.clone())

    hooks = [tensor_quantizer(switchable, name).register_forward_hook(keep(name)) for name in tensors]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()
    for name in tensors:
        read[name] = read.pop(name)


@torch.no_grad()
def without_bias(layer: nn.Conv2d | nn.Linear, x: Tensor, weight: Tensor) -> Tensor:
    """What the layer would make of x with this weight and no bias; linear in both."""
    if isinstance(layer, nn.Conv2d):
        made: Tensor = layer._conv_forward(x, weight, None)  # noqa: SLF001 - padding modes live there
        return made
    return F.linear(x, weight)

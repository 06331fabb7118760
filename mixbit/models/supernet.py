"""The super-net: every layer at every candidate num_bits, switched between passes (LIMPQ, Tang et al. 2022).

Paper: https://arxiv.org/abs/2203.08368. Ours: step sizes start from statistics before training, activations' too
(LIMPQ takes the first training batch of each num_bits); BatchNorms follow an explicit layer, not module order.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mixbit.errors import MisuseError
from mixbit.models.calibration import as_batch, observe
from mixbit.models.graph import trace
from mixbit.models.nodes import is_batchnorm, layer_calls
from mixbit.models.placement import ACTIVATIONS, Spot, insert_
from mixbit.models.quantized_layers import carry_weight_quantizer_, make_private_
from mixbit.policy import Entry, NumBits
from mixbit.quantizers.lsq import MultiQuantizer, initial_scale, positive


def build_supernet(
    model: nn.Module, layers: Mapping[str, Any], num_bits: Iterable[NumBits], calibration: Tensor | Sequence[Tensor]
) -> fx.GraphModule:
    """A copy of model with one scalar step size per (tensor, candidate), in eval mode, all layers at `float`.

    Weights keep their state_dict names; `<layer>.weight_quantizer.scales.<num_bits>` and
    `activation_quantizers.<tensor>.scales.<num_bits>` are the step sizes, `<batchnorm>.private.<num_bits>` the private
    BatchNorms; the plain BatchNorm is that of `float`. There are no output quantizers.

    Args:
        model: the float model.
        layers: content of layers.json.
        num_bits: candidates, 2 to 8; `float` is always among them.
        calibration: normalized pictures [N, C, H, W], or a sequence of such batches.

    Raises:
        MixbitError: the model cannot be traced, or NaN or infinity during calibration.
    """
    graph = trace(model, layers["input_shape"])
    candidates = [bits for bits in num_bits if bits != "float"]
    reads, readers = tensors_read(graph)
    made: dict[fx.Node, nn.Module] = {}

    def make(node: fx.Node, value: Tensor) -> None:
        signed = bool((value < 0).any())
        made[node] = MultiQuantizer({b: initial_scale(value, b, signed) for b in candidates}, signed=signed)

    observe(graph, as_batch(calibration), readers, make)
    spots = [Spot(tensor, 8, ACTIVATIONS, tuple(nodes)) for tensor, nodes in readers.items()]
    insert_(graph, spots, [made[spot.tensor] for spot in spots])
    for name in reads:
        layer: Any = graph.get_submodule(name)
        scales = {bits: initial_weight_scale(layer.weight, bits) for bits in candidates}
        carry_weight_quantizer_(layer, MultiQuantizer(scales, signed=True))
    ties = {bn: layer for bn, layer in layers["batchnorms"].items() if is_batchnorm(graph.get_submodule(bn))}
    for batchnorm in ties:
        make_private_(graph.get_submodule(batchnorm), candidates)
    # Names, not modules: a copy of the super-net must switch its own.
    graph.meta.update(reads=reads, batchnorms=ties, candidates=candidates)
    return graph


def tensors_read(graph: fx.GraphModule) -> tuple[dict[str, list[str]], dict[fx.Node, dict[fx.Node, None]]]:
    """(layer -> names of the tensors that its calls read, tensor -> the calls that read it); in execution order."""
    reads: dict[str, list[str]] = {}
    readers: dict[fx.Node, dict[fx.Node, None]] = {}
    for name, _, node in layer_calls(graph):
        reads.setdefault(name, []).append(node.all_input_nodes[0].name)
        readers.setdefault(node.all_input_nodes[0], {})[node] = None
    return reads, readers


def initial_weight_scale(weight: Tensor, num_bits: int) -> Tensor:
    """LIMPQ's first step size of a weight, max |mean +- 3 std| / 2^(b-1), shape []."""
    weight = weight.detach()
    std = weight.std() if weight.numel() > 1 else weight.abs().mean()
    mean = weight.mean()
    return positive(torch.maximum((mean - 3 * std).abs(), (mean + 3 * std).abs()) / 2 ** (num_bits - 1))


def weight_quantizer(supernet: fx.GraphModule, layer: str) -> MultiQuantizer:
    """The weight's step sizes of one layer."""
    found = supernet.get_submodule(f"{layer}.weight_quantizer")
    assert isinstance(found, MultiQuantizer)
    return found


def activation_quantizer(supernet: fx.GraphModule, layer: str) -> MultiQuantizer:
    """The step sizes of the tensor that a layer reads (in its first call); shared by all layers that read it."""
    found = supernet.get_submodule(f"{ACTIVATIONS}.{supernet.meta['reads'][layer][0]}")
    assert isinstance(found, MultiQuantizer)
    return found


def batchnorm_bits(entry: Entry, candidates: Iterable[int]) -> NumBits:
    """Whose BatchNorm an entry uses: its lower num_bits', or of the next candidate above, or `float`'s.

    LIMPQ only trains entries of equal num_bits; the lower one of two makes most of the noise (our own rule).
    """
    lower = min(math.inf if bits == "float" else bits for bits in entry)
    return min((bits for bits in candidates if bits >= lower), default="float")


def set_bits_(supernet: fx.GraphModule, assignment: Mapping[str, Entry]) -> None:
    """Switch layers to (weight num_bits, activation num_bits), candidates or `float`; layers not named stay.

    Raises:
        MisuseError: no such layer or candidate, or layers that read one tensor disagree.
    """
    reads, candidates = supernet.meta["reads"], supernet.meta["candidates"]
    set_to: dict[str, NumBits] = {}
    for layer, (weight_bits, activation_bits) in assignment.items():
        if layer not in reads:
            raise MisuseError(layer, "no such layer in the super-net", expected="a layer that forward runs")
        weight_quantizer(supernet, layer).num_bits = weight_bits
        for tensor in reads[layer]:
            if set_to.setdefault(tensor, activation_bits) != activation_bits:
                got = f"{set_to[tensor]} and {activation_bits}"
                raise MisuseError(layer, f"another layer reads {tensor} too", expected="equal activation_bits", got=got)
            supernet.get_submodule(f"{ACTIVATIONS}.{tensor}").num_bits = activation_bits  # type: ignore[assignment]
    for batchnorm, layer in supernet.meta["batchnorms"].items():
        if layer in assignment:
            bits = batchnorm_bits(assignment[layer], candidates)
            supernet.get_submodule(batchnorm).num_bits = bits  # type: ignore[assignment]

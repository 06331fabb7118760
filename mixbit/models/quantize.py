"""A network under one policy: fake quantizers where the deployed integer kernels read and write."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from mixbit.errors import MisuseError, MixbitError
from mixbit.models.build import load_state_
from mixbit.models.calibration import as_batch, observe
from mixbit.models.graph import trace
from mixbit.models.nodes import layer_calls
from mixbit.models.placement import Spot, insert_, place
from mixbit.models.quantized_layers import carry_weight_quantizer_
from mixbit.policy import Policy
from mixbit.quantizers.lsq import Quantizer
from mixbit.quantizers.mse import mse_scale


def build_quantized(
    model: nn.Module,
    layers: Mapping[str, Any],
    policy: Policy,
    calibration: Tensor | Sequence[Tensor],
    per_channel: bool = True,
) -> fx.GraphModule:
    """A copy of model with quantizers under a policy, in eval mode.

    Weights and original buffers keep their state_dict names. The quantizers are `<layer>.weight_quantizer`,
    `activation_quantizers.<tensor>` and `output_quantizers.<tensor>`, a tensor named by the node that makes it.
    Signs are those seen in calibration (any value below 0: signed). Step sizes minimize the squared error: weights'
    on the weights, activations' on what the float model computes on the calibration pictures.

    Args:
        model: the float model.
        layers: content of layers.json.
        policy: layer -> (weight num_bits, activation num_bits), every layer that runs.
        calibration: normalized pictures [N, C, H, W], or a sequence of such batches.
        per_channel: one weight step size per output channel, else one per tensor.

    Raises:
        MisuseError: policy misses or invents layers, or layers that read one tensor disagree.
        MixbitError: the model cannot be traced, or NaN or infinity during calibration.
    """
    graph = trace_for(model, layers, policy)
    spots = place(graph, policy)
    made: dict[Spot, Quantizer] = {}

    def make(node: fx.Node, value: Tensor) -> None:
        signed = bool((value < 0).any())
        for spot in (spot for spot in spots if spot.tensor is node):
            made[spot] = Quantizer(mse_scale(value, spot.num_bits, signed), num_bits=spot.num_bits, signed=signed)

    observe(graph, as_batch(calibration), [spot.tensor for spot in spots], make)
    weights = {
        name: _weight_quantizer(graph.get_submodule(name).weight, bits, per_channel)
        for name, (bits, _) in policy.items()
        if bits != "float"
    }
    return _assemble_(graph, layers, spots, [made[spot] for spot in spots], weights)


def _weight_quantizer(weight: Any, num_bits: int, per_channel: bool) -> Quantizer:
    channel_dim = 0 if per_channel else None
    scale = mse_scale(weight, num_bits, signed=True, channel_dim=channel_dim)
    return Quantizer(scale, num_bits=num_bits, signed=True, channel_dim=channel_dim)


def load_quantized(
    model: nn.Module, layers: Mapping[str, Any], policy: Policy, tensors: Mapping[str, Tensor]
) -> fx.GraphModule:
    """The network that `save_quantized` saved, bit for bit, in eval mode; model gives the structure only.

    Raises:
        MisuseError: policy misses or invents layers.
        MixbitError: the tensors of another network or policy.
    """
    graph = trace_for(model, layers, policy)
    spots = place(graph, policy)
    weights = {
        name: _saved_quantizer(tensors, f"{name}.weight_quantizer", bits, 0)
        for name, (bits, _) in policy.items()
        if bits != "float"
    }
    quantizers = [_saved_quantizer(tensors, spot.path, spot.num_bits, None) for spot in spots]
    quantized = _assemble_(graph, layers, spots, quantizers, weights)
    load_state_(quantized, tensors, "saved network")
    return quantized


def _saved_quantizer(tensors: Mapping[str, Tensor], path: str, num_bits: int, channel_dim: int | None) -> Quantizer:
    scale, signed = tensors.get(f"{path}.scale"), tensors.get(f"{path}.signed")
    if scale is None or signed is None:
        raise MixbitError(f"{path}.scale", "missing from the saved network", hint="Load it under its own policy")
    return Quantizer(scale, num_bits=num_bits, signed=bool(signed), channel_dim=channel_dim if scale.ndim else None)


def save_quantized(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, scales and signs included, as contiguous CPU copies for safetensors."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}


def trace_for(model: nn.Module, layers: Mapping[str, Any], policy: Policy) -> fx.GraphModule:
    """Trace model and check that policy speaks of its layers."""
    graph = trace(model, layers["input_shape"])
    names = dict.fromkeys(name for name, _, _ in layer_calls(graph))
    missing, unknown = [n for n in names if n not in policy], [n for n in policy if n not in names]
    if missing or unknown:
        what = "; ".join(
            f"{text} {', '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}"
            for text, wrong in (("no entry for", missing), ("no such layer:", unknown))
            if wrong
        )
        raise MisuseError("policy", what, expected=f"the {len(names)} layers that forward runs")
    return graph


def _assemble_(
    graph: fx.GraphModule,
    layers: Mapping[str, Any],
    spots: list[Spot],
    quantizers: list[Quantizer],
    weights: Mapping[str, Quantizer],
) -> fx.GraphModule:
    for spot, quantizer in zip(spots, quantizers, strict=True):
        quantizer.name = spot.path
    insert_(graph, spots, list(quantizers))
    for name, quantizer in weights.items():
        quantizer.name = f"{name}.weight_quantizer"
        carry_weight_quantizer_(graph.get_submodule(name), quantizer)
    graph.meta["batchnorms"] = dict(layers["batchnorms"])
    graph.meta["reads"] = {name: node.all_input_nodes[0].name for name, _, node in layer_calls(graph)}
    return graph

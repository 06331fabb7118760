"""From a trained super-net to one policy: its weights, its step sizes, and the BatchNorms that fit."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn

from mixbit.errors import MixbitError
from mixbit.models.supernet import batchnorm_bits
from mixbit.policy import Policy
from mixbit.quantizers.lsq import MIN_SCALE, Quantizer
from mixbit.quantizers.mse import mse_scale

_OWN_TO_THE_SUPERNET = re.compile(r"(^|\.)(weight_quantizer|private|activation_quantizers)\.")


def plain_weights(tensors: Mapping[str, Tensor], batchnorms: Mapping[str, str], policy: Policy) -> dict[str, Tensor]:
    """The state_dict of the float model: the super-net's weights, each BatchNorm the one that fits the policy.

    Args:
        tensors: state_dict of a super-net.
        batchnorms: BatchNorm -> layer, as in layers.json.
        policy: decides which private BatchNorms are taken.

    Returns:
        Names as in the float model; what forward never runs is not among them.
    """
    plain = {name: tensor for name, tensor in tensors.items() if not _OWN_TO_THE_SUPERNET.search(name)}
    for batchnorm, layer in batchnorms.items():
        bits = batchnorm_bits(policy[layer], _private_bits(tensors, batchnorm))
        prefix = f"{batchnorm}.private.{bits}."
        plain.update({f"{batchnorm}.{n.removeprefix(prefix)}": t for n, t in tensors.items() if n.startswith(prefix)})
    return plain


def _private_bits(tensors: Mapping[str, Tensor], batchnorm: str) -> Iterable[int]:
    prefix = f"{batchnorm}.private."
    return sorted({int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)})


@torch.no_grad()
def warm_start_(quantized: fx.GraphModule, supernet_tensors: Mapping[str, Tensor], policy: Policy) -> None:
    """Continue from a super-net: weights, fitting BatchNorms and learned step sizes replace those of quantized.

    A per_channel weight step size has no counterpart in the super-net: it is chosen anew on the super-net's weight.
    Step sizes whose num_bits was no candidate, and those of outputs, stay as calibrated. To calibrate them on the
    super-net's weights, give `build_quantized` a float model loaded with `plain_weights`.

    Raises:
        MixbitError: the super-net of another model.
    """
    plain = plain_weights(supernet_tensors, quantized.meta["batchnorms"], policy)
    held = quantized.state_dict()
    wrong = [n for n, t in plain.items() if n not in held or held[n].shape != t.shape]
    wrong += [n for n in held if n not in plain and "_quantizer" not in n]
    if wrong:
        what = f"another model's super-net: {', '.join(wrong[:3])}"
        raise MixbitError("warm start", what, hint="Compute the indicators of this model")
    for name, tensor in plain.items():
        held[name].copy_(tensor)
    for path, quantizer in quantized.named_modules():
        if isinstance(quantizer, Quantizer):
            _take_scale_(quantized, path, quantizer, supernet_tensors)


def _take_scale_(quantized: fx.GraphModule, path: str, quantizer: Quantizer, tensors: Mapping[str, Tensor]) -> None:
    learned = tensors.get(f"{path}.scales.{quantizer.num_bits}")
    layer = path.removesuffix(".weight_quantizer")
    if quantizer.per_channel or (learned is None and layer != path):
        weight: nn.Parameter = quantized.get_submodule(layer).weight  # type: ignore[assignment]
        fresh = mse_scale(weight, quantizer.num_bits, signed=True, channel_dim=quantizer.channel_dim)
        quantizer.scale.copy_(fresh)
    elif learned is not None and bool(tensors[f"{path}.signed"]) == (quantizer.quant_min < 0):
        quantizer.scale.copy_(learned.clamp(min=MIN_SCALE))

"""True size: what the weights must take, and what the file takes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from mixbit.policy import NumBits, Policy

_LAYER = re.compile(r"^(?P<layer>.*?)(:\d+)?\.(weight|codes|scale|bias|channels|count)$")


def payload_bytes(weights: int, num_bits: NumBits) -> float:
    """Weights * num_bits / 8; `float` is 32 bits."""
    return weights * (32 if num_bits == "float" else num_bits) / 8


def layer_sizes(packed: ir.Model, layers: Sequence[Mapping[str, Any]], policy: Policy) -> dict[str, dict[str, float]]:
    """Layer -> payload_bytes (of its weights) and stored_bytes (its weights, scales and biases in the file).

    Args:
        packed: from `lower_packed`.
        layers: `layers` of layers.json.
        policy: what the file was lowered from.
    """
    stored: dict[str, int] = {}
    for value in packed.graph.initializers.values():
        match = _LAYER.match(str(value.name))
        if match and value.const_value is not None:
            stored[match["layer"]] = stored.get(match["layer"], 0) + value.const_value.nbytes
    return {
        layer["name"]: {
            "payload_bytes": payload_bytes(layer["weights"], policy[layer["name"]][0]),
            "stored_bytes": stored.get(layer["name"], 0),
        }
        for layer in layers
        if layer["name"] in policy
    }

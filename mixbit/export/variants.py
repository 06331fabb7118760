"""One network under many {float, int8} policies, exported once: how long a file takes depends on shapes and kernels.

Values are random or whatever the model holds, and 8 bit stands for every int8 kernel: for measuring, not for deploying.
"""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn

from mixbit.export.bytes import BYTES
from mixbit.export.marker import LAYER_OPS, is_marker, layer_of, marker_graph, read_marker
from mixbit.export.packed import PACKED, lower_packed
from mixbit.export.ref import is_weight
from mixbit.export.save import describe, to_bytes
from mixbit.models.graph import trace
from mixbit.models.placement import place
from mixbit.models.quantize import build_quantized
from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY, Policy, is_float

PICTURES = 8
DIALECTS = {one.name: one for one in (PACKED, BYTES)}


def export(
    model: nn.Module, layers: Mapping[str, Any], policy: Policy, info: Mapping[str, Any], dialect: str = PACKED.name
) -> bytes:
    """The file of any policy, with the weights that the model holds and step sizes for random pictures.

    Args:
        model: the float network.
        layers: content of layers.json.
        policy: layer -> (weight num_bits, activation num_bits).
        info: dataset_info.json.
        dialect: that the file is written in.

    Raises:
        MixbitError: the network cannot be traced or exported.
    """
    metadata = describe(policy=policy, inputs={}, info=info)
    marked = _marked(model, layers, policy, info)
    return to_bytes(lower_packed(marked, dialect=DIALECTS[dialect]), metadata)


class Variants:
    """Files of one network by policy; float layers of `widest` stay float in every policy."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, Any],
        widest: Policy,
        info: Mapping[str, Any],
        dialect: str = PACKED.name,
    ) -> None:
        """Export the policy with the most int8 layers.

        Args:
            model: the float network; its weights do not matter.
            layers: content of layers.json.
            widest: every layer float or 8 bit.
            info: dataset_info.json.
            dialect: that the files are written in.

        Raises:
            MixbitError: the network cannot be traced or exported.
        """
        self.graph: fx.GraphModule = trace(model, info["input_shape"])
        self.policy, self.input_shape, self._info = widest, tuple(info["input_shape"]), info
        self._dialect = DIALECTS[dialect]
        self._marked = _marked(model, layers, widest, info)

    def file(self, policy: Policy) -> bytes:
        """The file of a policy whose int8 layers are int8 in `widest` too."""
        wide: Policy = {name: FLOAT_ENTRY if is_float(entry) else INT8_ENTRY for name, entry in policy.items()}
        marked = self._marked.clone()
        kept = {spot.tensor.name: len(spot.readers) < len(spot.tensor.users) for spot in place(self.graph, wide)}
        for node in [node for node in marked.graph if is_marker(node)]:
            if is_weight(node):
                if is_float(wide[read_marker(node).name.removesuffix(".weight_quantizer")]):
                    _pass_by_(node, layers_too=True)
            else:
                tensor = read_marker(node).name.partition(".")[2]
                if tensor not in kept or kept[tensor]:
                    _pass_by_(node, layers_too=tensor not in kept)
        metadata = describe(policy=wide, inputs={}, info=self._info)
        return to_bytes(lower_packed(marked, dialect=self._dialect), metadata)


def _marked(model: nn.Module, layers: Mapping[str, Any], policy: Policy, info: Mapping[str, Any]) -> ir.Model:
    pictures = torch.randn(PICTURES, *info["input_shape"], generator=torch.Generator().manual_seed(0))
    return marker_graph(build_quantized(model, layers, policy, pictures), info["input_shape"])


def _pass_by_(marker: ir.Node, *, layers_too: bool) -> None:
    """Let readers read what is before a quantizer: all of them, or all that are no layers."""
    source, quantized = marker.inputs[0], marker.outputs[0]
    for usage in list(quantized.uses()):
        is_layer = usage.node.op_type in LAYER_OPS and layer_of(usage.node) is not None
        if layers_too or not is_layer:
            usage.node.replace_input_with(usage.idx, source)
    if not quantized.uses() and marker.graph is not None:
        marker.graph.remove(marker, safe=True)  # the runtime would compute it all the same

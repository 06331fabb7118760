"""Executed bits: which kernel ONNX Runtime really runs for each layer of a deployable."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixbit.devices.onnx_file import Node, read_nodes
from mixbit.devices.session import optimized_graph
from mixbit.errors import MixbitError, RunError
from mixbit.policy import Entry

INT8_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul")
FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits")
# What a float kernel may take over from what follows it.
_ABSORBED = ("Relu", "Clip", "BatchNormalization", "Add", "Identity")
# What the exporter and the optimizer append to a layer's name in names of nodes and tensors; `_weight_q` are weights
# that the optimizer quantized by itself.
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_weight_q|\.(codes|dq|weight|out|scale|bias|b)|:\d+)$")


@dataclass(frozen=True)
class Executed:
    """What ran for one layer.

    Attributes:
        policy: what was asked, [weight num_bits, activation num_bits].
        executed: `int8` or `float`.
        kernel: the operator in the optimized graph; `missing` when none could be told apart.
        calls: how many nodes compute this layer.
        reason: why a layer that should run int8 does not; empty otherwise.
    """

    policy: tuple[Any, Any]
    executed: str
    kernel: str
    calls: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As in deployable.json and profile.json; `reason` only when there is one."""
        return {key: value for key, value in asdict(self).items() if value != ""}


def executed_kernels(model: Path | bytes, policy: Mapping[str, Entry], *, threads: int) -> dict[str, Executed]:
    """Layer -> what this machine's ONNX Runtime executes for it, from the optimized graph."""
    nodes = read_nodes(optimized_graph(model, threads=threads))
    written = read_nodes(model)
    calls = Counter(name for node in written for name in set(_names(node.name)))
    own = kernel_nodes(policy, written, nodes)
    return {layer: _executed(entry, own[layer], nodes, calls[layer]) for layer, entry in policy.items()}


def kernel_nodes(layers: Iterable[str], written: Sequence[Node], optimized: Sequence[Node]) -> dict[str, list[Node]]:
    """Layer -> its kernels in the optimized graph, none where they can't be told apart.

    Args:
        layers: names.
        written: nodes of the file.
        optimized: nodes of the graph that is executed.
    """
    trails = {layer: _trail(layer, written) for layer in layers}
    return {layer: [node for node in optimized if _belongs(node, layer, trail)] for layer, trail in trails.items()}


def not_int8(kernels: Mapping[str, Executed]) -> dict[str, str]:
    """Layer -> reason, for layers that should run int8 and do not."""
    return {layer: kernel.reason for layer, kernel in kernels.items() if kernel.reason}


def require_int8(reasons: Mapping[str, str], device: str) -> None:
    """Pass when there is no such layer.

    Args:
        reasons: from `not_int8`.
        device: whose runtime was asked.

    Raises:
        RunError: a line for each layer: the reason, and how to leave the layer float.
    """
    if reasons:
        raise RunError([_fault(layer, reason, device) for layer, reason in reasons.items()])


def _fault(layer: str, reason: str, device: str) -> MixbitError:
    hint = f"`layers: {{{layer}: {{exclude: true}}}}` in the experiment leaves it float"
    return MixbitError(layer, f"its policy is int8, but {device} computes it in float: {reason}", hint=hint)


def _executed(entry: Entry, own: Sequence[Node], nodes: Sequence[Node], calls: int) -> Executed:
    if len(own) < (1 if "float" in entry else max(calls, 1)):
        which = "of this layer" if not own else f"for {calls - len(own)} of {calls} calls of this layer"
        return Executed(entry, "float", "missing", len(own), f"no kernel {which} in the optimized graph")
    slow = [node for node in own if node.op_type not in INT8_KERNELS]
    node = slow[0] if slow else own[0]
    reason = _reason(node, nodes) if slow and "float" not in entry else ""
    return Executed(entry, "float" if slow else "int8", node.op_type, len(own), reason)


def _trail(layer: str, written: Sequence[Node]) -> frozenset[str]:
    # Tensors a float kernel may be named after: the layer's own, and those of what it absorbs.
    found = {name for node in written if layer in _names(node.name) for name in node.outputs}
    for node in written:
        if node.op_type in _ABSORBED and found & set(node.inputs):
            found |= set(node.outputs)
    return frozenset(found)


def _belongs(node: Node, layer: str, trail: AbstractSet[str]) -> bool:
    if node.op_type in INT8_KERNELS:
        return layer in (*_names(node.name), *_names(node.inputs[3]))
    if node.op_type not in FLOAT_KERNELS:
        return False
    names = (node.name, *node.inputs[1:3])
    return any(layer in _names(name) for name in names) or _SUFFIX.sub("", node.name) in trail


def _names(name: str) -> Iterator[str]:
    """A name, and what is left as suffixes go; a layer's own name may end as a suffix does."""
    yield name
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
        yield name


def _reason(node: Node, nodes: Sequence[Node]) -> str:
    makers = {name: maker.op_type for maker in nodes for name in maker.outputs}
    readers = [reader.op_type for reader in nodes if set(node.outputs) & set(reader.inputs)]
    if makers.get(node.inputs[0]) != "DequantizeLinear":
        return f"its input comes from {makers.get(node.inputs[0], 'outside')} in float"
    if "QuantizeLinear" not in readers:
        return f"its output is read in float by {', '.join(sorted(set(readers))) or 'the caller'}"
    return f"the runtime kept {node.op_type} between quantizers"

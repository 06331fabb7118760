"""Which kernel ONNX Runtime really runs for each layer of a deployable."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from mixbit.devices.executed import Executed
from mixbit.devices.onnx_file import Node, read_nodes
from mixbit.devices.session import optimized_graph
from mixbit.policy import Entry

INT8_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul")
FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits")
# What a float kernel may take over from what follows it.
_ABSORBED = ("Relu", "Clip", "BatchNormalization", "Add", "Identity")
# What the exporter and the optimizer append to a layer's name in names of nodes and tensors; `_weight_q` are weights
# that the optimizer quantized by itself.
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_weight_q|\.(codes|dq|weight|out|scale|bias|b)|:\d+)$")


def executed_kernels(model: Path | bytes, policy: Mapping[str, Entry], *, threads: int) -> dict[str, Executed]:
    """Layer -> what this machine's ONNX Runtime executes for it, from the optimized graph."""
    nodes = read_nodes(optimized_graph(model, threads=threads))
    written = read_nodes(model)
    calls = Counter(name for node in written for name in set(names_of(node.name)))
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
    found = {name for node in written if layer in names_of(node.name) for name in node.outputs}
    for node in written:
        if node.op_type in _ABSORBED and found & set(node.inputs):
            found |= set(node.outputs)
    return frozenset(found)


def _belongs(node: Node, layer: str, trail: AbstractSet[str]) -> bool:
    if node.op_type in INT8_KERNELS:
        return layer in (*names_of(node.name), *names_of(node.inputs[3]))
    if node.op_type not in FLOAT_KERNELS:
        return False
    names = (node.name, *node.inputs[1:3])
    return any(layer in names_of(name) for name in names) or _SUFFIX.sub("", node.name) in trail


def names_of(name: str) -> Iterator[str]:
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

"""What OpenVINO's runtime graph tells of the layers of a file: their kernels, and the precision of each.

Notes on a node: https://docs.openvino.ai/2026/api/c_cpp_api/group__ov__runtime__cpp__api.html (`ov::exec_model_info`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbit.devices.executed import Executed
from mixbit.devices.kernels import names_of
from mixbit.devices.onnx_file import read_nodes
from mixbit.policy import Entry, is_float

_JOINT = "Subgraph"
_KERNELS = ("Convolution", "FullyConnected", "MatMul", _JOINT)
_PRECISIONS = {"I8": "int8", "f32": "float"}


@dataclass(frozen=True)
class Kernel:
    """A kernel of the runtime graph.

    Attributes:
        name: in the graph, and in its performance counters.
        computes: names of what it came from.
        primitive: such as `brgconv_avx512_I8`: implementation, instruction set, precision; of layers joined in one
            kernel `Subgraph`, for its own name tells its first input only.
        byte_weights: layers whose weights it reads as int8; its matrix products take bytes for both sides or neither.
        reads: what its first input is and comes from.
        is_depthwise: one input channel to each kernel, but many in all.
    """

    name: str
    computes: frozenset[str]
    primitive: str
    byte_weights: frozenset[str]
    reads: str
    is_depthwise: bool

    def precision(self, layer: str) -> str:
        """What it computes a layer in: int8, float, bf16."""
        if self.primitive == _JOINT:
            return "int8" if layer in self.byte_weights else "float"
        last = self.primitive.rpartition("_")[2]
        return _PRECISIONS.get(last, last)


def read_kernels(compiled: Any) -> Iterator[Kernel]:
    """Kernels that may compute layers, in the order they run.

    Args:
        compiled: an `openvino.CompiledModel`.
    """
    for op in compiled.get_runtime_model().get_ordered_ops():
        if (kind := _said(op, "layerType")) in _KERNELS:
            names = _said(op, "originalLayersNames").split(",")
            computes = frozenset(name.partition("/")[0] for name in names)
            primitive = kind if kind == _JOINT else _said(op, "primitiveType")
            yield Kernel(op.friendly_name, computes, primitive, _byte_weights(op), _reads(op), _is_depthwise(op))


def written_calls(path: Path) -> dict[str, list[frozenset[str]]]:
    """Layer -> for each of its calls, names of the node in the file and of what it writes: a kernel has one of them."""
    found: defaultdict[str, list[frozenset[str]]] = defaultdict(list)
    nodes = read_nodes(path)
    renamed = {node.inputs[0]: node.outputs[0] for node in nodes if node.op_type == "Identity"}
    for node in [node for node in nodes if node.name]:
        also = {renamed[name] for name in node.outputs if name in renamed}
        for layer in names_of(node.name):
            found[layer].append(frozenset({node.name, *node.outputs, *also}))
    return found


def kernels_of(calls: Sequence[AbstractSet[str]], nodes: Sequence[Kernel]) -> list[Kernel]:
    """Those that compute one of these calls."""
    return [node for node in nodes if any(node.computes & call for call in calls)]


def executed_kernel(layer: str, entry: Entry, calls: Sequence[AbstractSet[str]], nodes: Sequence[Kernel]) -> Executed:
    """What ran for one layer.

    Args:
        layer: its name.
        entry: its policy.
        calls: from `written_calls`.
        nodes: from `read_kernels`.
    """
    own = kernels_of(calls, nodes)
    missing = [call for call in calls if not any(node.computes & call for node in own)]
    if not own or (missing and not is_float(entry)):
        which = "of this layer" if not own else f"for {len(missing)} of {len(calls)} calls of this layer"
        return Executed(entry, "float", "missing", len(own), f"no kernel {which} in the runtime graph")
    slow = [node for node in own if node.precision(layer) != "int8"]
    node = slow[0] if slow else own[0]
    reason = f"the kernel {node.primitive} reads {node.reads}" if slow and not is_float(entry) else ""
    return Executed(entry, node.precision(layer), node.primitive, len(own), reason)


def _said(op: Any, key: str) -> str:
    """What the plugin notes of a node; see `ov::exec_model_info`."""
    return str(op.rt_info[key].value) if key in op.rt_info else ""


def _byte_weights(op: Any) -> frozenset[str]:
    makers = [read.get_source_output().get_node() for read in op.inputs()[1:]]
    constants = [maker for maker in makers if _said(maker, "layerType") == "Const"]
    bytewise = [one.friendly_name for one in constants if _said(one, "outputPrecisions") == "i8"]
    return frozenset(layer for name in bytewise for layer in names_of(name))


def _reads(op: Any) -> str:
    maker = op.input(0).get_source_output().get_node()
    return f"{_said(maker, 'outputPrecisions')} of {_said(maker, 'layerType')} {maker.friendly_name}"


def _is_depthwise(op: Any) -> bool:
    if _said(op, "layerType") != "Convolution":
        return False
    inputs, weight = (list(op.input(place).get_partial_shape().get_min_shape()) for place in (0, 1))
    return len(weight) == len(inputs) + 1 and weight[2] == 1 and inputs[1] > 1

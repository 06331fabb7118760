"""The text of a file made short: nodes that recur become calls of functions, tensors get short names.

Our own design. A runtime inlines ONNX's functions (https://onnx.ai/onnx/intro/concepts.html#functions) before it
optimizes, so it executes the same kernels. The node of a layer keeps the layer's name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from mixbit.export.build import PIECES, Piece
from mixbit.export.functions import Call, make_calls, short_names

# What operations over windows do when they do not say; a Conv's kernel has the shape of its weight.
_DEFAULTS: dict[str, set[object]] = {
    "auto_pad": {"NOTSET"},
    "ceil_mode": {0},
    "dilations": {1},
    "group": {1},
    "pads": {0},
    "storage_order": {0},
    "strides": {1},
}
_WINDOWS = ("Conv", "MaxPool")
_DOMAIN = "mixbit"


def compact(model: ir.Model) -> ir.Model:
    """The same model in fewer bytes.

    Args:
        model: from `lower_packed`; not changed.
    """
    graph, pieces = model.graph, list[Piece](model.meta[PIECES])
    calls, functions = make_calls(pieces, dict(graph.opset_imports), _DOMAIN)
    values = {value: _copy(value) for value in (*graph.inputs, *graph.initializers.values())}
    nodes = [_node(entry, values) for entry in _entries(graph, calls)]
    _shorten_(nodes, [*graph.inputs, *graph.outputs], values)
    opsets = {**graph.opset_imports, **({_DOMAIN: 1} if functions else {})}
    used = {id(value) for node in nodes for value in node.inputs}
    short = ir.Graph(
        [values[value] for value in graph.inputs],
        [values[value] for value in graph.outputs],
        nodes=nodes,
        initializers=[values[v] for v in graph.initializers.values() if id(values[v]) in used],
        opset_imports=opsets,
        name=graph.name,
    )
    return ir.Model(short, ir_version=model.ir_version, producer_name=model.producer_name, functions=functions)


def _entries(graph: ir.Graph, calls: Sequence[Call]) -> Iterator[ir.Node | Call]:
    """Nodes in order, each call where its last node was."""
    last = {id(call.nodes[-1]): call for call in calls}
    inside = {id(node) for call in calls for node in call.nodes}
    for node in graph:
        if id(node) in last:
            yield last[id(node)]
        elif id(node) not in inside:
            yield node


def _node(entry: ir.Node | Call, values: dict[ir.Value, ir.Value]) -> ir.Node:
    inputs = [None if value is None else values[value] for value in entry.inputs]
    outputs = [_copy(value) for value in entry.outputs]
    values.update(zip(entry.outputs, outputs, strict=True))
    if isinstance(entry, Call):
        return ir.Node(_DOMAIN, entry.function, inputs, outputs=outputs, name="")
    attributes = [attribute for attribute in entry.attributes.values() if not _says_nothing(entry, attribute)]
    return ir.Node(entry.domain, entry.op_type, inputs, attributes, outputs=outputs, name=entry.name or "")


def _says_nothing(node: ir.Node, attribute: ir.Attr) -> bool:
    if node.op_type not in _WINDOWS:
        return False
    value = attribute.value if isinstance(attribute.value, tuple | list) else (attribute.value,)
    default = set(value) <= _DEFAULTS.get(attribute.name, set())
    return default or (node.op_type == "Conv" and attribute.name == "kernel_shape")


def _copy(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)


def _shorten_(nodes: Sequence[ir.Node], kept: Sequence[ir.Value], values: dict[ir.Value, ir.Value]) -> None:
    """The shortest names for what is read most; weights and biases of float layers keep theirs, for kernels to show."""
    counts = Counter(value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None)
    fixed = {values[value] for value in kept}
    read = (value for node in nodes if node.name for value in node.inputs)
    fixed |= {value for value in read if value is not None and value.const_value is not None}
    taken = {str(value.name) for value in fixed} | {str(node.name) for node in nodes}
    names = (name for name in short_names() if name not in taken)
    for value, _ in counts.most_common():
        if value not in fixed:
            value.name = next(names)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)

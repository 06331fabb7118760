"""Which tensors are alive at each step of a network, and which layers decide their bits."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from mixbit.models.nodes import is_layer, is_max_pool, layer_calls, module_of
from mixbit.models.placement import kernel_outputs

_WINDOWS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def activations(graph: fx.GraphModule) -> dict[str, Any]:
    """`tensors`: name -> elements for one picture and who decides their bits; `steps`: the tensors alive at each.

    Alive while a step runs is what it reads, what it makes and what is read later. What alone reads a tensor and keeps
    its number of elements (BatchNorm, ReLU, a view) works in place. Bits follow `mixbit.models.placement`: `read_by`
    are layers whose activation num_bits a tensor has that nothing else reads; `written_by` the layers that must all be
    quantized for it to be 8-bit codes. What a sum or anything else reads too has no `read_by`: it is kept at 8 bit,
    whatever fewer bits layers round it to as they read. Without either a tensor is float.

    Args:
        graph: from `mixbit.models.graph.trace`.
    """
    held = _held(graph)
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    last = {
        made: max((order[user] for user in _readers(chain[-1])), default=order[made]) for made, chain in held.items()
    }
    steps = [
        {"step": _title(made), "alive": [other.name for other in held if order[other] <= order[made] <= last[other]]}
        for made in held
    ]
    writers = _writers(graph)
    tensors = {
        made.name: {"elements": _elements(made), **_deciders(graph, chain, writers)} for made, chain in held.items()
    }
    return {"tensors": tensors, "steps": steps}


def _title(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _elements(node: fx.Node) -> int:
    return int(torch.Size(node.meta["shape"]).numel())


def _held(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    """Node that makes a tensor -> itself and those that work on it in place."""
    held: dict[fx.Node, list[fx.Node]] = {}
    taken: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if "shape" in node.meta and node.op not in {"get_attr", "output"} and node not in taken:
            held[node] = [node]
            while (user := _in_place(graph, held[node][-1])) is not None:
                taken.add(user)
                held[node].append(user)
    return held


def _in_place(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The one reader that needs no tensor of its own."""
    user = next(iter(node.users), None)
    if user is None or len(node.users) > 1 or user.all_input_nodes != [node] or "shape" not in user.meta:
        return None
    module = module_of(graph, user)
    makes = is_layer(module) or is_max_pool(graph, user) or isinstance(module, _WINDOWS)
    return None if makes or user.op == "output" or _elements(user) != _elements(node) else user


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """Nodes that read a tensor, through those that make none, such as a split."""
    for user in node.users:
        yield user
        if "shape" not in user.meta:
            yield from _readers(user)


def _writers(graph: fx.GraphModule) -> dict[fx.Node, list[str]]:
    """What int8 kernels write -> the layers of which none may be float for it."""
    names = list(dict.fromkeys(name for name, _, _ in layer_calls(graph)))
    quantized = dict.fromkeys(names, (8, 8))
    writers: dict[fx.Node, list[str]] = {node: [] for node in kernel_outputs(graph, quantized)}
    for name in names:
        without = set(kernel_outputs(graph, {**quantized, name: ("float", "float")}))
        for node in writers.keys() - without:
            writers[node].append(name)
    return writers


def _deciders(graph: fx.GraphModule, chain: list[fx.Node], writers: dict[fx.Node, list[str]]) -> dict[str, list[str]]:
    last = chain[-1]
    only = next(iter(last.users), None)
    if only is not None and len(last.users) == 1 and is_max_pool(graph, only) and only in writers:
        # The maximum is taken of codes, so they are written as the maximum has them.
        return {"written_by": writers[only], "read_by": _layers_alone(graph, only)}
    written = next((node for node in chain if node in writers), None)
    if written is None or written is last:
        readers = _layers_alone(graph, last)
        if readers:
            return {"written_by": [], "read_by": readers}
    return {"written_by": [] if written is None else writers[written], "read_by": []}


def _layers_alone(graph: fx.GraphModule, node: fx.Node) -> list[str]:
    """The layers that read a tensor, if nothing else does."""
    if not all(is_layer(module_of(graph, user)) for user in node.users):
        return []
    return list(dict.fromkeys(str(user.target) for user in node.users))

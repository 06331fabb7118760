"""Which layers are neighbours: one reads what another makes, so a change of precision between them costs time."""

from collections import Counter

import torch
from torch import fx

from mixbit.models.nodes import is_layer, layer_calls, module_of


def neighbours(graph: fx.GraphModule) -> dict[tuple[str, str], int]:
    """(layer, layer that reads what it makes) -> elements between them for one picture, in execution order.

    Layers that read one tensor change precision together: the first stands for all of them. Where layers' outputs are
    added up, each answers for its share of the sum.

    Args:
        graph: from `mixbit.models.graph.trace`.
    """
    made_by: dict[fx.Node, tuple[str, ...]] = {}
    for node in graph.graph.nodes:
        sources = dict.fromkeys(name for term in node.all_input_nodes for name in made_by[term])
        made_by[node] = (str(node.target),) if is_layer(module_of(graph, node)) else tuple(sources)
    found: Counter[tuple[str, str]] = Counter()
    seen: set[fx.Node] = set()
    for name, _, node in layer_calls(graph):
        tensor = node.all_input_nodes[0]
        makers = made_by[tensor] if tensor not in seen else ()
        seen.add(tensor)
        elements = int(torch.Size(tensor.meta["shape"]).numel())
        found.update({(maker, name): -(-elements // len(makers)) for maker in makers if maker != name})
    return dict(found)

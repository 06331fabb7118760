"""What a node of a traced network is."""

import operator
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import fx, nn

LAYERS = (nn.Conv2d, nn.Linear)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, F.relu6, torch.relu)
_MAX_POOLS = (F.max_pool2d, torch.max_pool2d)


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module a node calls, None when it calls none."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_layer(module: nn.Module | None) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Whether module holds weights that we quantize: exactly a Conv2d or Linear, or our own form of one."""
    return isinstance(module, LAYERS) and (type(module) in LAYERS or hasattr(module, "weight_quantizer"))


def is_batchnorm(module: nn.Module | None) -> TypeGuard[nn.BatchNorm1d | nn.BatchNorm2d]:
    """Whether module is a batch normalization."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the only common base


def is_relu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether node is a ReLU or ReLU6 in any spelling; kernels absorb both."""
    if node.op == "call_method":
        return node.target == "relu"
    return node.target in _RELUS or isinstance(module_of(graph, node), nn.ReLU | nn.ReLU6)


def is_max_pool(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether node takes the maximum over windows; kernels do this on codes."""
    module = module_of(graph, node)
    return (isinstance(module, nn.MaxPool2d) and not module.return_indices) or node.target in _MAX_POOLS


def is_addition(node: fx.Node) -> bool:
    """Whether node adds two tensors of one shape."""
    is_add = (node.op == "call_function" and node.target in _ADDITIONS) or (
        node.op == "call_method" and node.target == "add"
    )
    terms = node.all_input_nodes
    return is_add and len(terms) == 2 and terms[0].meta.get("shape") == terms[1].meta.get("shape") is not None


def layer_calls(graph: fx.GraphModule) -> Iterator[tuple[str, Any, fx.Node]]:
    """(layer name, module, node) of every call of a layer, in execution order."""
    for node in graph.graph.nodes:
        module = module_of(graph, node)
        if is_layer(module):
            yield str(node.target), module, node

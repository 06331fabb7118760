"""In-place operations of a traced network, replaced by their pure forms, so that a tensor's name means one value."""

import inspect
import operator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import fx

from mixbit.errors import MixbitError
from mixbit.models.nodes import module_of

_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


class Tracer(fx.Tracer):
    """Records `x += y` as in place; fx alone takes it for `x = x + y`, which the other names of x do not see."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a node's value while forward runs."""
        return _InPlaceProxy(node, self)


class _InPlaceProxy(fx.Proxy):
    pass


def _record(function: Any) -> Any:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _operator in _OPERATORS:
    setattr(_InPlaceProxy, f"__{_operator.__name__}__", _record(_operator))


def make_pure_(graph: fx.GraphModule) -> list[MixbitError]:
    """Replace in-place operations; whoever read the changed tensor afterwards reads the operation's output.

    Args:
        graph: nodes that make tensors carry `meta["shape"]`.

    Returns:
        A fault for each operation without a pure form.
    """
    faults = []
    # Listed first: making a module pure hides its other calls.
    for node in [node for node in graph.graph.nodes if _is_in_place(graph, node)]:
        if _make_node_pure_(graph, node):
            if "shape" not in node.meta:  # a number: its other names keep their value
                continue
            order = {other: place for place, other in enumerate(graph.graph.nodes)}
            later = {user for user in order if order[user] > order[node]}
            node.all_input_nodes[0].replace_all_uses_with(node, delete_user_cb=later.__contains__)
        else:
            what = f"forward changes a tensor in place by {_name(node)}"
            faults.append(MixbitError(node.name, what, hint="Use the form that returns a new tensor"))
    graph.recompile()
    return faults


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _is_in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    name = _name(node)
    if node.op == "call_module":
        return bool(getattr(module_of(graph, node), "inplace", False))
    if node.op == "call_method":
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    if getattr(operator, name, None) is node.target:
        return node.target in _OPERATORS
    return name.endswith("_") or _arguments(node).get("inplace", False) is True


def _make_node_pure_(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        setattr(module_of(graph, node), "inplace", False)  # noqa: B010 - Module types its attributes as tensors
    elif _arguments(node).get("inplace") is True:
        node.args, node.kwargs = (), {**_arguments(node), "inplace": False}
    else:
        node.target = _pure_target(node) or node.target
    return not _is_in_place(graph, node)


def _pure_target(node: fx.Node) -> Any:
    if node.target in _OPERATORS:
        return _OPERATORS[node.target]
    name = _name(node).rstrip("_")
    if node.op == "call_method":
        return name if hasattr(torch.Tensor, name) else None
    return getattr(torch, name, None) or getattr(F, name, None)


def _arguments(node: fx.Node) -> dict[str, Any]:
    target: Any = node.target
    try:
        return dict(inspect.signature(target).bind(*node.args, **node.kwargs).arguments)
    except (TypeError, ValueError):  # builtins have no signature
        return dict(node.kwargs)

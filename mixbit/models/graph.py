"""The one file that walks a network: trace it once, then describe its layers, tensors and ties."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mixbit.errors import MixbitError
from mixbit.models.faults import (
    UnquantizableModelError,
    failed_forward,
    failed_trace,
    layer_faults,
    operation_faults,
    output_fault,
)
from mixbit.models.nodes import is_addition, is_batchnorm, is_layer, layer_calls, module_of
from mixbit.models.pure import Tracer, make_pure_
from mixbit.models.tensors import activations


def trace(model: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule:
    """The operations of model's forward in eval mode, on a copy of its modules; in-place operations become pure.

    Every node that makes a tensor carries `meta["shape"]`, its shape for one picture, batch dimension included.

    Args:
        model: float network from one tensor [N, *input_shape] to one tensor [N, ...].
        input_shape: of one picture, such as (3, 32, 32).

    Raises:
        UnquantizableModelError: all reasons why model cannot be quantized, a line each.
    """
    model = copy.deepcopy(model).eval()
    pictures = _pictures(model, input_shape)
    expected = _forward(model, pictures)
    graph = _symbolic_trace(model)
    _refuse([*layer_faults(model, graph), *operation_faults(graph)])
    _refuse(_record_shapes_(graph, pictures))
    _refuse(make_pure_(graph))
    _remove_identities_(graph)
    _refuse(_comparison_fault(graph, pictures, expected))
    return graph


def _refuse(faults: Sequence[MixbitError]) -> None:
    if faults:
        raise UnquantizableModelError(faults)


def _pictures(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    held = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, *input_shape, generator=generator)
    return pictures.to(held.device, held.dtype if held.is_floating_point() else torch.float32)


@torch.no_grad()
def _forward(model: nn.Module, pictures: Tensor) -> Tensor:
    open_modules: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: open_modules.append(name)

    def leave(*_: object) -> None:
        open_modules.pop()

    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in model.named_modules()]
    hooks += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        model(pictures[:1].clone())
        output = model(pictures.clone())
    except Exception as error:
        where = open_modules[-1] if open_modules else ""
        raise UnquantizableModelError([failed_forward(where or type(model).__name__, error, pictures)]) from error
    finally:
        for hook in hooks:
            hook.remove()
    fault = output_fault(model, output, len(pictures))
    if fault:
        raise UnquantizableModelError([fault])
    return output  # type: ignore[no-any-return]


def _symbolic_trace(model: nn.Module) -> fx.GraphModule:
    parameters = list(inspect.signature(model.forward).parameters.values())
    # Arguments that have a default keep it: only the pictures are symbolic.
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    tracer = Tracer()
    try:
        graph = tracer.trace(model, concrete_args=defaults or None)
    except Exception as error:
        raise UnquantizableModelError([failed_trace(model, error)]) from error
    for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        for user in list(node.users):
            graph.erase_node(user)
        graph.erase_node(node)
    return fx.GraphModule(tracer.root, graph)


def _remove_identities_(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if isinstance(module_of(graph, node), nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


class _Shapes(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        return value


@torch.no_grad()
def _record_shapes_(graph: fx.GraphModule, pictures: Tensor) -> list[MixbitError]:
    one, two = _Shapes(graph), _Shapes(graph)
    try:
        one.run(pictures[:1].clone())
        two.run(pictures.clone())
    except Exception as error:  # noqa: BLE001 - a number of the batch frozen into the graph fails in its own way
        return [failed_trace(graph, error)]
    for node in graph.graph.nodes:
        if node.name in one.shapes:
            node.meta["shape"] = one.shapes[node.name]
    return [
        MixbitError(
            name, "what the layer computes depends on the batch size", expected="twice the work for two pictures"
        )
        for name, _, node in layer_calls(graph)
        if _elements(two.shapes[node.name]) != 2 * _elements(one.shapes[node.name])
    ]


@torch.no_grad()
def _comparison_fault(graph: fx.GraphModule, pictures: Tensor, expected: Tensor) -> list[MixbitError]:
    if torch.allclose(graph(pictures.clone()), expected, rtol=1e-4, atol=1e-5, equal_nan=True):
        return []
    what = "traced, the network computes something else, expected the same output twice in eval mode"
    return [MixbitError("forward", what, hint="Remove randomness and kept state from forward")]


def _elements(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def describe_layers(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """The content of layers.json: layers in execution order with exact integer costs, and how they are tied.

    `macs` and `in_elements`, the elements read, are those of one picture, summed over all calls; `reads` names the
    tensor that the first call reads.

    Raises:
        UnquantizableModelError: as `trace`.
    """
    graph = trace(model, input_shape)
    layers: dict[str, dict[str, Any]] = {}
    for name, module, node in layer_calls(graph):
        tensor, macs = node.all_input_nodes[0], _macs(module, node)
        in_elements = _elements(tensor.meta["shape"])
        if name in layers:
            layers[name]["calls"] += 1
            layers[name]["macs"] += macs
            layers[name]["in_elements"] += in_elements
        else:
            costs = {"macs": macs, "in_elements": in_elements, "reads": tensor.name}
            layers[name] = {"name": name, **_constants(module), **costs}
    executed = list(layers)
    return {
        "input_shape": list(input_shape),
        "layers": list(layers.values()),
        "shared_activations": shared_activations(graph),
        "residual_ties": residual_ties(graph),
        "batchnorms": batchnorms(graph),
        "activations": activations(graph),
        "never_run": [n for n, module in model.named_modules() if is_layer(module) and n not in layers],
        "first": executed[0],
        "last": executed[-1],
    }


def _constants(module: Any) -> dict[str, Any]:
    conv = isinstance(module, nn.Conv2d)
    return {
        "kind": "conv2d" if conv else "linear",
        "weights": module.weight.numel(),
        "biases": 0 if module.bias is None else module.bias.numel(),
        "in_channels": module.in_channels if conv else module.in_features,
        "out_channels": module.out_channels if conv else module.out_features,
        "groups": module.groups if conv else 1,
        "calls": 1,
        "never_run": False,
    }


def _macs(module: Any, node: fx.Node) -> int:
    """Each output element is a dot product over what one filter sees: in_channels / groups * kernel or in_features."""
    return _elements(node.meta["shape"]) * int(module.weight[0].numel())


def shared_activations(graph: fx.GraphModule) -> list[list[str]]:
    """Groups of layers that must agree on activation bits, because they read one tensor; in execution order."""
    readers: dict[fx.Node, set[str]] = {}
    for name, _, node in layer_calls(graph):
        readers.setdefault(node.all_input_nodes[0], set()).add(name)
    return _merged(graph, readers.values())


def residual_ties(graph: fx.GraphModule) -> list[list[str]]:
    """Groups of layers whose outputs are added together, also through normalization, activation, pooling and sums."""
    made_by: dict[fx.Node, set[str]] = {}
    for node in graph.graph.nodes:
        terms = node.all_input_nodes
        if is_layer(module_of(graph, node)):
            made_by[node] = {str(node.target)}
        elif is_addition(node):
            made_by[node] = made_by[terms[0]] | made_by[terms[1]]
        else:
            made_by[node] = made_by[terms[0]] if len(terms) == 1 else set()
    return _merged(graph, [made_by[node] for node in graph.graph.nodes if is_addition(node)])


def _merged(graph: fx.GraphModule, groups: Any) -> list[list[str]]:
    """Groups that overlap become one; those of one layer vanish; all in execution order."""
    merged: list[set[str]] = []
    for group in groups:
        touching = [other for other in merged if other & group]
        merged = [other for other in merged if not other & group] + [set(group).union(*touching)]
    order = {name: place for place, name in reversed([*enumerate(n for n, _, _ in layer_calls(graph))])}
    named = [sorted(group, key=order.__getitem__) for group in merged if len(group) > 1]
    return sorted(named, key=lambda group: order[group[0]])


def batchnorms(graph: fx.GraphModule) -> dict[str, str]:
    """Batch normalization -> the layer whose output feeds it, else the layer that ran last before it."""
    feeds: dict[fx.Node, str | None] = {}
    latest: str | None = None
    found: dict[str, str] = {}
    executed = [name for name, _, _ in layer_calls(graph)]
    for node in graph.graph.nodes:
        terms, module = node.all_input_nodes, module_of(graph, node)
        feeds[node] = feeds[terms[0]] if len(terms) == 1 else None
        if is_layer(module):
            latest = feeds[node] = str(node.target)
        elif is_batchnorm(module):
            found.setdefault(str(node.target), feeds[node] or latest or executed[0])
    return found

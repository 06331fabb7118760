"""Reasons why a network cannot be quantized: where, what, and what to try."""

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from mixbit.errors import MixbitError
from mixbit.models.nodes import is_layer

# Their weights only shift and stretch: they stay float, whatever the shape of the weights.
_STAY_FLOAT = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, nn.modules.batchnorm._NormBase)  # noqa: SLF001
_HINTS: dict[type[nn.Module], str] = {
    nn.MultiheadAttention: "Spell attention out with Linear layers and scaled_dot_product_attention",
    nn.TransformerEncoder: "Spell the encoder out with Linear layers and scaled_dot_product_attention",
    nn.TransformerEncoderLayer: "Spell the layer out with Linear layers and scaled_dot_product_attention",
    nn.ConvTranspose2d: "Replace it by Upsample and Conv2d",
    nn.Conv1d: "Use a Conv2d with a kernel of height 1",
}
_WEIGHTED = {F.conv1d, F.conv2d, F.conv3d, F.linear, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
             F.bilinear, F.embedding, F.embedding_bag, F.multi_head_attention_forward}  # fmt: skip
_PRODUCTS = {"matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot", "mv", "inner", "__matmul__"}


class UnquantizableModelError(MixbitError):
    """All reasons why a network cannot be quantized, a line each."""

    def __init__(self, faults: Sequence[MixbitError]) -> None:
        self.faults = tuple(faults)
        Exception.__init__(self, "\n".join(str(fault) for fault in self.faults))


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def failed_forward(where: str, error: Exception, pictures: Tensor) -> MixbitError:
    """The network does not run on pictures of the data's shape."""
    shape = list(pictures.shape[1:])
    return MixbitError(
        where,
        f"forward fails on pictures of shape {shape}: {one_line(error)}",
        hint="Check the model's arguments against the shape of the data",
    )


def failed_trace(model: nn.Module, error: Exception) -> MixbitError:
    """The network runs, but what it does depends on more than its modules."""
    where = _place_in_user_code(error) or type(model).__name__
    if isinstance(error, fx.proxy.TraceError):
        what = "forward branches on data, expected the same operations for every picture"
        hint = "Replace if, while and for over tensor values by tensor operations such as torch.where"
    else:
        what = f"forward cannot be traced: {one_line(error)}"
        hint = "Use tensor operations only: no numpy, no numbers taken out of tensors, no fixed batch size"
    return MixbitError(where, what, hint=hint)


def _place_in_user_code(error: Exception) -> str | None:
    library = str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_absolute()]
    ours = str(Path(__file__).parent)
    frames = [f for f in frames if not f.filename.startswith((library, ours))]
    if not frames:
        return None
    path = Path(frames[-1].filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{frames[-1].lineno}"


def output_fault(model: nn.Module, output: object, batch_size: int) -> MixbitError | None:
    """The network must answer with one tensor, a row per picture."""
    where = f"{type(model).__name__}.forward"
    hint = "Return one tensor with a row per picture"
    if not isinstance(output, Tensor):
        return MixbitError(where, "output", expected="one tensor", got=type(output).__name__, hint=hint)
    if output.ndim == 0 or output.shape[0] != batch_size:
        expected, got = f"{batch_size} rows for {batch_size} pictures", f"shape {list(output.shape)}"
        return MixbitError(where, "output", expected=expected, got=got, hint=hint)
    return None


def layer_faults(model: nn.Module, graph: fx.GraphModule) -> list[MixbitError]:
    """Modules that run with weights we cannot quantize, and a network without any we can."""
    names = dict.fromkeys(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    modules = {name: graph.get_submodule(name) for name in names}
    faults = [fault for name, module in modules.items() if (fault := _module_fault(name, module))]
    faults += _shared_weights(modules)
    if not faults and not any(is_layer(module) for module in modules.values()):
        what = "no layer to quantize, expected at least one Conv2d or Linear that forward runs"
        faults.append(MixbitError(type(model).__name__, what))
    return faults


def _module_fault(name: str, module: nn.Module) -> MixbitError | None:
    if type(module) in {nn.Conv2d, nn.Linear} and isinstance(module._parameters.get("weight"), nn.Parameter):  # noqa: SLF001
        return None
    kind = type(module).__name__
    if parametrize.is_parametrized(module) or type(module) in {nn.Conv2d, nn.Linear}:
        hint = "Bake the weight in first (remove_parametrizations or remove_weight_norm)"
        return MixbitError(name, f"the weight of this {kind} is computed anew in every forward", hint=hint)
    if isinstance(module, _STAY_FLOAT) or all(parameter.ndim < 2 for parameter in module.parameters()):
        return None
    hint = _HINTS.get(type(module), "Replace it by Conv2d or Linear layers")
    return MixbitError(name, f"{kind} holds weights that cannot be quantized", expected="Conv2d or Linear", hint=hint)


def _shared_weights(modules: dict[str, nn.Module]) -> Iterator[MixbitError]:
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        if is_layer(module):
            owners.setdefault(id(module.weight), []).append(name)
    for names in owners.values():
        if len(names) > 1:
            hint = "Call one module twice, or give each its own weight"
            yield MixbitError(", ".join(names), "these layers share one weight, expected one each", hint=hint)


def operation_faults(graph: fx.GraphModule) -> list[MixbitError]:
    """Convolutions and products with weights that no module owns."""
    constant: set[fx.Node] = set()
    faults: dict[tuple[str, str], MixbitError] = {}
    for node in graph.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (inputs and all(term in constant for term in inputs)):
            constant.add(node)
        if _uses_loose_weight(node, constant):
            where = _enclosing(node)
            operation = str(getattr(node.target, "__name__", node.target))
            what = f"forward calls {operation} with a weight of its own, which cannot be quantized"
            faults.setdefault((where, operation), MixbitError(where, what, hint="Use an nn.Conv2d or nn.Linear module"))
    return list(faults.values())


def _uses_loose_weight(node: fx.Node, constant: set[fx.Node]) -> bool:
    if node.op not in {"call_function", "call_method"} or node in constant:
        return False
    if node.target in _WEIGHTED:
        return True
    name: Any = getattr(node.target, "__name__", node.target)
    return name in _PRODUCTS and any(term in constant for term in node.all_input_nodes)


def _enclosing(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [str(name) for name, _ in stack.values()]
    return names[-1] if names and names[-1] else "forward"

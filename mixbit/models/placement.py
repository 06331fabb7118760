"""Where quantizers stand in a traced network: what a deployed int8 kernel reads and writes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import fx, nn

from mixbit.errors import MisuseError
from mixbit.models.nodes import is_addition, is_batchnorm, is_layer, is_max_pool, is_relu, layer_calls, module_of
from mixbit.policy import NumBits, Policy

OUTPUT_BITS = 8
ACTIVATIONS, OUTPUTS = "activation_quantizers", "output_quantizers"
# What may stand between the layer that makes the network output and the output itself.
_CLOSING_MODULES = (nn.Flatten, nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.Dropout)
_CLOSING_FUNCTIONS = (torch.flatten, torch.softmax, torch.log_softmax, torch.sigmoid, torch.squeeze,
                      F.softmax, F.log_softmax, F.sigmoid)  # fmt: skip
_CLOSING_METHODS = ("flatten", "softmax", "log_softmax", "sigmoid", "view", "reshape", "squeeze", "float")


@dataclass(frozen=True)
class Spot:
    """One tensor quantizer.

    Attributes:
        tensor: name of the node that makes the tensor.
        num_bits: 2 to 8.
        folder: `activation_quantizers` (the policy's) or `output_quantizers` (8 bit).
        readers: the nodes that read the quantized tensor; every other reader keeps the one before.
    """

    tensor: fx.Node
    num_bits: int
    folder: str
    readers: tuple[fx.Node, ...]

    @property
    def path(self) -> str:
        """The quantizer's module name."""
        return f"{self.folder}.{self.tensor.name}"


def read_bits(graph: fx.GraphModule, policy: Policy) -> dict[fx.Node, NumBits]:
    """Tensor read by layers -> its activation num_bits.

    Raises:
        MisuseError: layers that read one tensor disagree.
    """
    bits: dict[fx.Node, NumBits] = {}
    readers: dict[fx.Node, str] = {}
    for name, _, node in layer_calls(graph):
        tensor, wanted = node.all_input_nodes[0], policy[name][1]
        if bits.setdefault(tensor, wanted) != wanted:
            where, got = f"{readers[tensor]}, {name}", f"{bits[tensor]} and {wanted}"
            raise MisuseError(where, "these layers read one tensor", expected="equal activation_bits", got=got)
        readers.setdefault(tensor, name)
    return bits


def place(graph: fx.GraphModule, policy: Policy) -> list[Spot]:
    """Tensor quantizers under one policy, output quantizers first.

    Each tensor that quantized layers read has one quantizer at the policy's bits. The output of a layer, with the
    BatchNorm, ReLU and maximum over windows that kernels compute on its codes, also gets one of 8 bit unless a policy
    quantizer is all that reads it, because a kernel without a quantized output runs in float; so does a sum of such
    outputs. Where the policy says 8 bit too, one quantizer plays both parts. What makes the network output, and float
    layers, have no output quantizer.
    """
    tensors = read_bits(graph, policy)
    outputs = [
        t
        for t in kernel_outputs(graph, policy)
        if tensors.get(t, "float") == "float" or not _only_layers_read(graph, t)
    ]
    both = {tensor for tensor in outputs if tensors.get(tensor) == OUTPUT_BITS}
    spots = [Spot(t, OUTPUT_BITS, OUTPUTS, tuple(t.users)) for t in outputs if t not in both]
    for tensor, num_bits in tensors.items():
        if num_bits != "float":
            readers = tuple(u for u in tensor.users if tensor in both or is_layer(module_of(graph, u)))
            spots.append(Spot(tensor, num_bits, ACTIVATIONS, readers))
    return spots


def kernel_outputs(graph: fx.GraphModule, policy: Policy) -> list[fx.Node]:
    """What int8 kernels write, in execution order: ends of quantized layers, and of sums of two of these."""
    ends: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        layer = is_layer(module_of(graph, node)) and "float" not in policy[str(node.target)]
        if layer or (is_addition(node) and all(term in ends for term in node.all_input_nodes)):
            end = _tail(graph, node)
            if not _closes_network(graph, end):
                ends[end] = None
    return list(ends)


def insert_(graph: fx.GraphModule, spots: list[Spot], quantizers: list[nn.Module]) -> None:
    """Put a quantizer at each spot, given in the same order; of two on one tensor the second reads the first."""
    for folder in (ACTIVATIONS, OUTPUTS):
        graph.add_module(folder, nn.ModuleDict())
    latest: dict[fx.Node, fx.Node] = {}
    for spot, quantizer in zip(spots, quantizers, strict=True):
        source = latest.get(spot.tensor, spot.tensor)
        graph.get_submodule(spot.folder).add_module(spot.tensor.name, quantizer)
        with graph.graph.inserting_after(source):
            node = graph.graph.call_module(spot.path, (source,))
        for reader in spot.readers:
            reader.replace_input_with(source, node)
        latest[spot.tensor] = node
    graph.graph.lint()
    graph.recompile()
    graph.eval()


def _tail(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    tail, module = node, module_of(graph, node)
    # Of a Linear over sequences, BatchNorm does not normalize the output channels.
    scales = isinstance(module, nn.Conv2d) or (is_layer(module) and len(node.meta["shape"]) == 2)
    for absorbed in (
        lambda user: scales and is_batchnorm(module_of(graph, user)),
        lambda user: is_relu(graph, user),
        lambda user: is_max_pool(graph, user),
    ):
        user = next(iter(tail.users), None)
        if len(tail.users) == 1 and user is not None and absorbed(user):
            tail = user
    return tail


def _only_layers_read(graph: fx.GraphModule, tensor: fx.Node) -> bool:
    return all(is_layer(module_of(graph, user)) for user in tensor.users)


def _closes_network(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the network output is this tensor, or a view or probability of it."""
    return any(user.op == "output" or (_closing(graph, user) and _closes_network(graph, user)) for user in node.users)


def _closing(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _CLOSING_METHODS
    return node.target in _CLOSING_FUNCTIONS or isinstance(module_of(graph, node), _CLOSING_MODULES)

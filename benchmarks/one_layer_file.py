"""Parts of an ONNX file, run node by node as written; the kernel that ONNX Runtime executes for a convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from mixbit.devices.kernels import kernel_nodes
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import open_session, optimized_graph

Array = npt.NDArray[Any]

# https://onnx.ai/onnx/operators/onnx__QLinearConv.html
INPUTS = ("x", "x_scale", "x_zero_point", "w", "w_scale", "w_zero_point", "y_scale", "y_zero_point", "bias")


@dataclass(frozen=True)
class Kernel:
    """A QLinearConv of the optimized graph.

    Attributes:
        name: of the node.
        domain: of the operator; empty is ONNX's own.
        inputs: what each of `INPUTS` is called.
        constants: all of `INPUTS` but x.
        written: uint8 [N, C, H, W], what it wrote.
        stretched: uint8 [N, C, H, W], the bytes that the next layer reads.
    """

    name: str
    domain: str
    inputs: tuple[str, ...]
    constants: dict[str, Array]
    written: Array
    stretched: Array


def between(model: bytes, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """Run the nodes of a file that make `outputs` of the tensors fed, as written, without optimization."""
    loaded = onnx.load_from_string(model)
    wanted, kept = set(outputs), []
    for node in reversed(loaded.graph.node):
        if wanted & set(node.output) - set(feeds):
            wanted |= set(node.input)
            kept.append(node)
    inputs = [
        onnx.helper.make_tensor_value_info(key, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for key, array in feeds.items()
    ]
    constants = [tensor for tensor in loaded.graph.initializer if tensor.name in wanted]
    ends = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = onnx.helper.make_graph(kept[::-1], "part", inputs, ends, constants)
    part = onnx.helper.make_model(graph, opset_imports=loaded.opset_import, ir_version=loaded.ir_version)
    found: list[Array] = open_session(part.SerializeToString(), threads=1, optimize=False).run(None, dict(feeds))
    return found


def run_kernel(packed: bytes, layer: str, stored: Array, *, stretches: bool) -> Kernel:
    """Feed a layer's kernel, taken from the graph that ONNX Runtime executes, with bytes.

    Args:
        packed: the file.
        layer: name of a convolution.
        stored: uint8 [N, C, H, W], as the file holds input codes.
        stretches: whether the file stretches the output codes over their byte.
    """
    content = optimized_graph(packed, threads=1)
    (found,) = kernel_nodes([layer], read_nodes(packed), read_nodes(content))[layer]
    assert found.op_type == "QLinearConv", f"{layer} runs as {found.op_type}"
    model = load(content)
    node = next(node for node in model.graph if node.name == found.name)
    ends = [found.outputs[0]]
    if stretches:
        (reader,) = node.outputs[0].consumers()
        ends.append(str(reader.outputs[0].name))
    last = "channels_last" in node.attributes and node.attributes["channels_last"].as_int() == 1
    x = np.ascontiguousarray(stored.transpose(0, 2, 3, 1)) if last else stored
    written = [y.transpose(0, 3, 1, 2) if last else y for y in between(content, {found.inputs[0]: x}, ends)]
    constants = {
        key: model.graph.initializers[name].const_value.numpy()
        for key, name in zip(INPUTS[1:], found.inputs[1:], strict=True)
    }
    return Kernel(found.name, node.domain, found.inputs, constants, written[0], written[-1])


def load(content: bytes) -> ir.Model:
    """A file's graph."""
    return ir.from_proto(onnx.load_from_string(content))

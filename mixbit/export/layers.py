"""Layers of a marker graph as a kernel computes them: with their bias and BatchNorm, a Linear of any rank as a Gemm."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from mixbit.export.fold import Affine, affine, batchnorm_after
from mixbit.export.marker import FakeQuant, constant, is_marker, layer_of, read_marker, weight_root

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul that is lowered as a whole.

    Attributes:
        node: in the marker graph.
        name: the layer's; one layer may have several nodes.
        weight: float initializer, output channels first.
        quantizer: of the weight.
        bias: float [C].
        absorbed: nodes after it that become part of it: the addition of a bias, a BatchNorm.
        rows: for a MatMul that reads more than a matrix: the shape that its rows take on again, one dimension -1.
    """

    node: ir.Node
    name: str
    weight: ir.Value
    quantizer: FakeQuant | None
    bias: Array | None
    absorbed: tuple[ir.Node, ...]
    rows: tuple[int, ...] | None = None

    @property
    def map(self) -> Affine | None:
        """Bias and BatchNorm per output channel."""
        batchnorm = next((node for node in self.absorbed if node.op_type == "BatchNormalization"), None)
        return affine(self.bias, batchnorm, constant(self.weight).shape[0])

    @property
    def op_type(self) -> str:
        """Of the node that is deployed."""
        return "Conv" if self.node.op_type == "Conv" else "Gemm"

    @property
    def unfolded(self) -> bool:
        """Whether its constants are the layer's own, so that other calls of the layer can share them."""
        return not any(node.op_type == "BatchNormalization" for node in self.absorbed)


def find_layers(nodes: Iterable[ir.Node]) -> list[Layer]:
    """Layers that an int8 kernel may compute, and float ones whose BatchNorm is folded."""
    return [layer for node in nodes if (layer := _layer(node)) is not None]


def _layer(node: ir.Node) -> Layer | None:
    name, weight = layer_of(node), weight_root(node)
    if name is None or weight is None:
        return None
    if node.op_type == "MatMul":
        return _linear(node, name, weight)
    if not _is_plain(node):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    batchnorm = batchnorm_after(node)
    absorbed = () if batchnorm is None else (batchnorm,)
    return Layer(node, name, weight, _quantizer(node.inputs[1]), None if bias is None else constant(bias), absorbed)


def _is_plain(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not bias.is_initializer():
        return False
    if node.op_type == "Conv":
        return True
    expected = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    return node.op_type == "Gemm" and all(
        node.attributes[key].value == value if key in node.attributes else key in {"alpha", "beta", "transA"}
        for key, value in expected.items()
    )


def _linear(node: ir.Node, name: str, weight: ir.Value) -> Layer | None:
    """X @ transpose(weight) + bias, where the weight has a quantizer: in float it stays as the exporter wrote it."""
    turned, channels = _maker(node.inputs[1]), constant(weight).shape[0]
    rows = _rows(node.inputs[0], channels)
    if turned is None or turned.op_type != "Transpose" or rows is None:
        return None
    quantizer = _quantizer(turned.inputs[0])
    if quantizer is None or list(turned.attributes["perm"].as_ints()) != [1, 0]:
        return None
    addition = _bias_after(node, channels)
    batchnorm = batchnorm_after(addition or node) if len(rows) == 2 else None
    bias = None if addition is None else next(constant(v) for v in addition.inputs if v and v.is_initializer())
    absorbed = tuple(other for other in (addition, batchnorm) if other is not None)
    return Layer(node, name, weight, quantizer, bias, absorbed, rows if len(rows) > 2 else None)


def _rows(x: ir.Value | None, channels: int) -> tuple[int, ...] | None:
    """The output's shape, its dynamic dimension as -1; None when more than one is unknown."""
    if x is None or x.shape is None or len(x.shape) < 2:
        return None
    rows = (*(dim if isinstance(dim, int) else -1 for dim in list(x.shape)[:-1]), channels)
    return rows if rows.count(-1) <= 1 else None


def _bias_after(node: ir.Node, channels: int) -> ir.Node | None:
    """The addition of a vector that alone reads a node's output."""
    output = node.outputs[0]
    readers = [usage.node for usage in output.uses()]
    if output.is_graph_output() or len(readers) != 1 or readers[0].op_type != "Add":
        return None
    vectors = [value for value in readers[0].inputs if value is not None and value.is_initializer()]
    return readers[0] if [constant(value).shape for value in vectors] == [(channels,)] else None


def _quantizer(weight: ir.Value | None) -> FakeQuant | None:
    marker = _maker(weight)
    return read_marker(marker) if marker is not None and is_marker(marker) else None


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()

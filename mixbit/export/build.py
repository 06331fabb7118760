"""Writing a new ONNX graph node by node."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

SHARED = "#"
PIECES = "pieces"
INT4, INT2 = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.int2)


@dataclass(frozen=True)
class Piece:
    """Nodes that belong together, in order.

    Attributes:
        kind: what they do.
        nodes: of the graph being written.
    """

    kind: str
    nodes: list[ir.Node]


class Builder:
    """Nodes and initializers of the graph being written; `values` maps the old graph's values to the new one's."""

    def __init__(self, inputs: Iterable[ir.Value]) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.inputs = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in inputs]
        self.outputs: list[ir.Value] = []
        self.values: dict[ir.Value, ir.Value] = dict(zip(inputs, self.inputs, strict=True))
        self.named: dict[str, ir.Value] = {str(value.name): value for value in self.inputs}
        self.pieces: list[Piece] = []
        self._piece: Piece | None = None

    @contextlib.contextmanager
    def piece(self, kind: str) -> Iterator[None]:
        """Nodes made within belong together: pieces of one kind may become calls of a function, see `compact.py`."""
        self._piece = Piece(kind, [])
        self.pieces.append(self._piece)
        yield
        self._piece = None

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Nodes made within belong to no piece: others read them too."""
        held, self._piece = self._piece, None
        yield
        self._piece = held

    def constant(self, name: str, array: Array) -> ir.Value:
        """An initializer; the same name is written once, with one content."""
        if name in self.initializers:
            held = self.initializers[name].const_value
            assert held is not None
            assert np.array_equal(held.numpy(), array), name
            return self.initializers[name]
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers[name] = value
        return value

    def shared(self, name: str, array: Array) -> ir.Value:
        """An initializer of nobody's own: no layer can be called what it is called."""
        return self.constant(f"{SHARED}{name}", array)

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        node_name: str | None = None,
    ) -> ir.Value:
        """One node with one output of this name; the node itself needs a name only where someone looks for it."""
        node = ir.node(op, list(inputs), dict(attributes or {}), name=node_name or "", num_outputs=1)
        node.outputs[0].name = name
        assert name not in self.named, name
        self.named[name] = node.outputs[0]
        self.nodes.append(node)
        if self._piece is not None:
            self._piece.nodes.append(node)
        return node.outputs[0]

    def step(self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None) -> ir.Value:
        """A node whose output nobody looks for by name: it gets a short one."""
        return self.node(op, inputs, f"{SHARED}{len(self.nodes)}", attributes)

    def cut(self, value: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
        """End the graph at `value`, an output from now on, and go on from an input of this name."""
        value.type = ir.TensorType(dtype)
        self.outputs.append(value)
        self.inputs.append(ir.Value(name=name, type=ir.TensorType(dtype)))
        return self.inputs[-1]

    def copy(self, node: ir.Node) -> None:
        """The old node as it is, reading the new values."""
        inputs = [self.read(value) for value in node.inputs]
        outputs = [ir.Value(name=value.name) for value in node.outputs]
        self.nodes.append(
            ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=node.name)
        )
        self.named.update((str(value.name), value) for value in outputs)
        self.values.update(zip(node.outputs, outputs, strict=True))

    def read(self, value: ir.Value | None) -> ir.Value | None:
        """The new graph's form of an old value; initializers come along."""
        if value is None:
            return None
        if value not in self.values:
            assert value.const_value is not None, value
            self.values[value] = self.constant(str(value.name), value.const_value.numpy())
        return self.values[value]

    def model(self, outputs: Iterable[ir.Value], *, opset: int, ir_version: int) -> ir.Model:
        """The finished model; `outputs` are values of the old graph."""
        new_outputs = []
        for old in outputs:
            new = self.values[old]
            if new.name != old.name:
                new = self.node("Identity", [new], str(old.name))
            new.shape, new.type = old.shape, old.type
            new_outputs.append(new)
        used = {id(value) for node in self.nodes for value in node.inputs if value is not None}
        graph = ir.Graph(
            self.inputs,
            [*new_outputs, *self.outputs],
            nodes=self.nodes,
            initializers=[value for value in self.initializers.values() if id(value) in used],
            opset_imports={"": opset},
            name="mixbit",
        )
        model = ir.Model(graph, ir_version=ir_version, producer_name="mixbit")
        model.meta[PIECES] = self.pieces
        return model

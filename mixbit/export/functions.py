"""Pieces of a graph that do the same with other constants, as calls of one ONNX function."""

import itertools
import string
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mixbit.export.build import Piece

Values = tuple[ir.Value, ...]

# What a function costs beside its nodes, and a call beside the names of what it reads and makes, in bytes.
FUNCTION_BYTES, CALL_BYTES, NAME_BYTES, CONSTANT_BYTES = 60, 18, 4, 40


@dataclass(frozen=True)
class Call:
    """A piece as the call of a function.

    Attributes:
        function: its name.
        nodes: of the piece.
        inputs: what it reads from outside and the function does not hold itself.
        outputs: what others read.
    """

    function: str
    nodes: tuple[ir.Node, ...]
    inputs: Values
    outputs: Values


@dataclass(frozen=True)
class _Cut:
    """A piece cut out of its graph; `slots` are all its readings of what is outside, in order."""

    piece: Piece
    slots: Values
    outputs: Values
    structure: Hashable


def make_calls(pieces: Iterable[Piece], opsets: dict[str, int], domain: str) -> tuple[list[Call], list[ir.Function]]:
    """Functions for what recurs often enough that the file becomes shorter.

    What all pieces of one structure read alike is a constant of the function or one input; the rest are its inputs.

    Args:
        pieces: of one graph.
        opsets: that the functions are written in.
        domain: of the functions.
    """
    alike: dict[Hashable, list[_Cut]] = {}
    for piece in pieces:
        if piece.nodes:
            cut = _cut(piece)
            alike.setdefault(cut.structure, []).append(cut)
    calls: list[Call] = []
    functions: list[ir.Function] = []
    taken: dict[str, int] = {}
    for cuts in alike.values():
        plan = _Plan.of(list(zip(*(cut.slots for cut in cuts), strict=True)))
        if _saved_bytes(cuts, plan) <= 0:
            continue
        kind = cuts[0].piece.kind
        taken[kind] = taken.get(kind, 0) + 1
        name = f"{kind}{taken[kind]}"
        functions.append(_function(domain, name, cuts[0], plan, opsets))
        calls += [_call(name, cut, plan) for cut in cuts]
    return calls, functions


@dataclass(frozen=True)
class _Plan:
    """What becomes of each slot: slot -> constant that the function holds, or slot -> place among its inputs."""

    constants: dict[int, ir.Value]
    places: dict[int, int]

    @classmethod
    def of(cls, columns: Sequence[Values]) -> "_Plan":
        """For slots that hold these values, one per piece."""
        constants: dict[int, ir.Value] = {}
        places: dict[int, int] = {}
        inputs: dict[Values, int] = {}
        for slot, column in enumerate(columns):
            value, same = column[0], len(set(column)) == 1
            if same and value.const_value is not None and len(column) * NAME_BYTES > CONSTANT_BYTES:
                constants[slot] = value
            else:
                places[slot] = inputs.setdefault(column, len(inputs))
        return cls(constants, places)

    @property
    def inputs(self) -> list[int]:
        """The first slot of each input."""
        first: dict[int, int] = {}
        for slot, place in self.places.items():
            first.setdefault(place, slot)
        return list(first.values())


def short_names() -> Iterator[str]:
    """a, b, ..., Z, aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))


def _cut(piece: Piece) -> _Cut:
    inside: dict[ir.Value, int] = {}
    slots: list[ir.Value] = []
    structure: list[Hashable] = [piece.kind]
    for node in piece.nodes:
        reads: list[int | str] = []
        for value in node.inputs:
            reads.append("absent" if value is None else inside.get(value, "outside"))
            if value is not None and value not in inside:
                slots.append(value)
        attributes = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
        structure.append((node.op_type, attributes, tuple(reads)))
        inside.update((value, len(inside) + place) for place, value in enumerate(node.outputs))
    nodes = {id(node) for node in piece.nodes}
    outputs = tuple(v for v in inside if v.is_graph_output() or any(id(use.node) not in nodes for use in v.uses()))
    return _Cut(piece, tuple(slots), outputs, (*structure, tuple(inside[value] for value in outputs)))


def _saved_bytes(cuts: Sequence[_Cut], plan: _Plan) -> int:
    body = sum(_node_bytes(node) for node in cuts[0].piece.nodes)
    call = CALL_BYTES + NAME_BYTES * (len(plan.inputs) + len(cuts[0].outputs))
    return (len(cuts) - 1) * body - len(cuts) * call - FUNCTION_BYTES - CONSTANT_BYTES * len(plan.constants)


def _node_bytes(node: ir.Node) -> int:
    return 4 + len(node.op_type) + NAME_BYTES * (len(node.inputs) + len(node.outputs)) + 12 * len(node.attributes)


def _function(domain: str, name: str, cut: _Cut, plan: _Plan, opsets: dict[str, int]) -> ir.Function:
    names = short_names()
    inputs = [ir.Value(name=next(names)) for _ in plan.inputs]
    held = {value: ir.Value(name=next(names)) for value in dict.fromkeys(plan.constants.values())}
    nodes = [ir.Node("", "Constant", [], [_attribute(v)], outputs=[inner], name="") for v, inner in held.items()]
    slots = iter(
        held[plan.constants[slot]] if slot in plan.constants else inputs[plan.places[slot]]
        for slot in range(len(cut.slots))
    )
    inside: dict[ir.Value, ir.Value] = {}
    for node in cut.piece.nodes:
        reads = [None if v is None else inside[v] if v in inside else next(slots) for v in node.inputs]
        outputs = [ir.Value(name=next(names)) for _ in node.outputs]
        nodes.append(ir.Node("", node.op_type, reads, list(node.attributes.values()), outputs=outputs, name=""))
        inside.update(zip(node.outputs, outputs, strict=True))
    graph = ir.Graph(inputs, [inside[value] for value in cut.outputs], nodes=nodes, opset_imports=opsets)
    return ir.Function(domain, name, graph=graph, attributes=[])


def _attribute(value: ir.Value) -> ir.Attr:
    assert value.const_value is not None
    return ir.AttrTensor("value", ir.tensor(value.const_value.numpy()))


def _call(name: str, cut: _Cut, plan: _Plan) -> Call:
    return Call(name, tuple(cut.piece.nodes), tuple(cut.slots[slot] for slot in plan.inputs), cut.outputs)

"""The little of an ONNX file that a device must read: nodes and metadata. Plain wire format, no onnx, no protobuf.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbit.errors import MisuseError
from mixbit.policy import long_policy

PREFIX = "mixbit."
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE = 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP = 1, 2, 3, 4


@dataclass(frozen=True)
class Node:
    """One operation and the names of what it reads and writes."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(model: Path | bytes) -> list[Node]:
    """Nodes of an ONNX file's graph, in file order.

    Raises:
        MisuseError: not an ONNX file.
    """
    graphs = [value for number, value in _top(model) if number == _MODEL_GRAPH]
    return [_node(value) for graph in graphs for number, value in _fields(graph) if number == _GRAPH_NODE]


def read_opset(model: Path | bytes) -> int:
    """The version of ONNX's own operators that a file is written in.

    Raises:
        MisuseError: not an ONNX file.
    """
    imports = [dict(_fields(value)) for number, value in _top(model) if number == _MODEL_OPSETS]
    return next((int(one.get(2, 0)) for one in imports if not _text(one.get(1, b""))), 0)


def read_raw_metadata(path: Path) -> dict[str, str]:
    """All metadata entries of an ONNX file as text.

    Raises:
        MisuseError: not an ONNX file.
    """
    entries = (dict(_fields(value)) for number, value in _top(path) if number == _MODEL_METADATA)
    return {_text(entry.get(1, b"")): _text(entry.get(2, b"")) for entry in entries}


def read_metadata(path: Path) -> dict[str, Any]:
    """What a deployable says about itself, JSON parsed, keys without `mixbit.`; the policy as in policy.json.

    Keys: format, policy, policy.sha256, inputs, preprocessing, labels.

    Raises:
        MisuseError: not an ONNX file, or not one that mixbit exported.
    """
    raw = {key.removeprefix(PREFIX): text for key, text in read_raw_metadata(path).items() if key.startswith(PREFIX)}
    if "format" not in raw:
        raise MisuseError(str(path), "not a deployable", expected="an ONNX file that mixbit exported")
    found: dict[str, Any] = {key: json.loads(text) if text[:1] in "[{" else text for key, text in raw.items()}
    return found | {"policy": long_policy(found["policy"])} if isinstance(found.get("policy"), dict) else found


def _top(model: Path | bytes) -> list[tuple[int, Any]]:
    content = model if isinstance(model, bytes) else model.read_bytes()
    try:
        found = list(_fields(memoryview(content)))
    except (IndexError, ValueError):
        found = []
    if not any(number == _MODEL_GRAPH for number, _ in found):
        raise MisuseError("ONNX model" if isinstance(model, bytes) else str(model), "not an ONNX file")
    return found


def _node(content: memoryview) -> Node:
    values: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: [""], _NODE_OP: [""]}
    for number, value in _fields(content):
        if number in values:
            values[number].append(_text(value))
    return Node(values[_NODE_OP][-1], values[_NODE_NAME][-1], tuple(values[_NODE_INPUT]), tuple(values[_NODE_OUTPUT]))


def _text(value: Any) -> str:
    return bytes(value).decode()


def _fields(content: memoryview) -> Iterator[tuple[int, Any]]:
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(content, position)
            yield number, value
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(kind)
        if position + length > len(content):
            raise ValueError(length)
        yield number, content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(shift)

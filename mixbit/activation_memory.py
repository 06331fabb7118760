"""Peak activation memory: the most bytes that the tensors alive at one step take, for one picture.

A tensor that only layers read has their activation num_bits; one that a sum or anything else reads is kept at 8 bit;
float is 32 bit, also for a float layer that reads codes. Bytes of each tensor are rounded up. It is what a kernel for
packed activations would need: ONNX Runtime holds a byte for every code below 8 bits, and no workspace is counted.

The peak is no sum over layers but the largest of such sums, one a step. So a limit on it is a limit on each, and those
that another always exceeds are dropped. Our own form; `layers` is the content of layers.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from mixbit.entries import Layers, run_names
from mixbit.limits import PEAK
from mixbit.policy import FLOAT_BITS, Entry, Policy, as_number, is_float

KEPT_BITS = 8

Entries = Mapping[str, Sequence[Entry]]


@dataclass(frozen=True)
class Row:
    """One step, or one way in which its tensors get their bits: a sum over layers, in bytes.

    Attributes:
        name: as the cost is called in an allocation.
        constant: bytes that no choice changes.
        of: layer -> entry -> bytes.
    """

    name: str
    constant: int
    of: Mapping[str, Mapping[Entry, int]] = field(default_factory=dict)

    def least(self) -> int:
        """The fewest bytes under any policy."""
        return self.constant + sum(min(row.values()) for row in self.of.values())


def peak_activation_bytes(policy: Policy, layers: Layers) -> int:
    """The peak under one policy; 0 where layers.json tells of no tensors."""
    tensors = layers.get("activations", {}).get("tensors", {})
    held = {name: _bytes(tensor["elements"], _bits(tensor, policy)) for name, tensor in tensors.items()}
    return max((sum(held[name] for name in step["alive"]) for step in _steps(layers)), default=0)


def rows(layers: Layers, entries: Entries) -> list[Row]:
    """What has to stay within a limit on the peak: every step as sums over layers, without those never the largest.

    Args:
        layers: content of layers.json.
        entries: candidates of each layer.
    """
    every = [row for step in _steps(layers) for row in _rows_of(step, layers, entries)]
    kept: list[Row] = []
    for row in sorted(every, key=lambda row: -row.least()):
        if not any(_never_above(row, other) for other in kept):
            kept = [other for other in kept if not _never_above(other, row)] + [row]
    return kept


def least_peak(layers: Layers, entries: Entries) -> int:
    """No policy has a smaller peak; without ties one has this."""
    return max((row.least() for row in rows(layers, entries)), default=0)


def of_layer(row: Row, layers: Layers, layer: str, entry: Entry) -> int:
    """A layer's part of a row; the first layer bears the constant."""
    constant = row.constant if layer == run_names(layers)[0] else 0
    return constant + row.of.get(layer, {}).get(entry, 0)


def is_row(cost: str) -> bool:
    """Whether a cost of an allocation is one of the peak's rows."""
    return cost.startswith(f"{PEAK}[")


def _steps(layers: Layers) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = layers.get("activations", {}).get("steps", ())
    return steps


def _bits(tensor: Mapping[str, Any], policy: Policy) -> int:
    """Of the layers that decide the bits of a tensor, the most that one says."""
    return max((_said(tensor, layer, policy[layer]) for layer in _deciders(tensor)), default=FLOAT_BITS)


def _deciders(tensor: Mapping[str, Any]) -> list[str]:
    """Layers that read one tensor agree, so the first speaks for all."""
    return [*tensor["read_by"][:1], *tensor["written_by"]]


def _said(tensor: Mapping[str, Any], layer: str, entry: Entry) -> int:
    if layer in tensor["read_by"][:1]:
        return FLOAT_BITS if is_float(entry) else int(as_number(entry[1]))
    return FLOAT_BITS if is_float(entry) else 0 if tensor["read_by"] else KEPT_BITS


def _bytes(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _rows_of(step: Mapping[str, Any], layers: Layers, entries: Entries) -> Iterator[Row]:
    """A row for each choice of the layer that decides on each tensor: the largest of them is the step."""
    tensors = [layers["activations"]["tensors"][name] for name in step["alive"]]
    for deciders in dict.fromkeys(product(*(_that_matter(tensor, entries) for tensor in tensors))):
        constant, of = 0, dict[str, dict[Entry, int]]()
        for tensor, layer in zip(tensors, deciders, strict=True):
            if layer is None:
                constant += _bytes(tensor["elements"], FLOAT_BITS)
                continue
            row = of.setdefault(layer, dict.fromkeys(entries[layer], 0))
            for entry in row:
                row[entry] += _bytes(tensor["elements"], _said(tensor, layer, entry))
        yield Row(f"{PEAK}[{step['step']}{''.join(f',{name}' for name in deciders if name)}]", constant, of)


def _that_matter(tensor: Mapping[str, Any], entries: Entries) -> list[str | None]:
    """Deciders of a tensor, without those that never say more than another always says."""
    deciders = _deciders(tensor)
    said = {name: [_said(tensor, name, entry) for entry in entries[name]] for name in deciders}
    kept: list[str | None] = []
    for name in sorted(deciders, key=lambda name: -max(said[name])):
        if not any(other is not None and max(said[name]) <= min(said[other]) for other in kept):
            kept.append(name)
    return kept or [None]


def _never_above(row: Row, other: Row) -> bool:
    """Whether a row is at most another under every policy, ties aside."""
    most = row.constant - other.constant
    for layer in {**row.of, **other.of}:
        one, two = row.of.get(layer, {}), other.of.get(layer, {})
        most += max(one.get(entry, 0) - two.get(entry, 0) for entry in {**one, **two})
    return most <= 0

"""Indicators as values: layer -> {weight, activation} -> num_bits -> harm, without torch.

Harm is an expected increase of the loss: higher means more fragile, `float` is 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mixbit.errors import MixbitError
from mixbit.policy import NumBits

KINDS = ("weight", "activation")
Table = Mapping[str, Mapping[str, Mapping[str, float]]]


def share_activations(table: Table, shared: Sequence[Sequence[str]]) -> dict[str, dict[str, dict[str, float]]]:
    """The harm of an activation tensor divided among the k layers that read it; 1/k each.

    Args:
        table: every reader carries the whole harm of what it reads.
        shared: groups of layers that read one tensor, from layers.json.
    """
    readers = {name: len(group) for group in shared for name in group}
    parts = {"weight": dict.fromkeys(table, 1), "activation": {name: readers.get(name, 1) for name in table}}
    return {
        name: {kind: {bits: value / parts[kind][name] for bits, value in row.items()} for kind, row in kinds.items()}
        for name, kinds in table.items()
    }


def read_together(layer: str, shared: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The layers that share activation num_bits with `layer`, itself among them.

    Args:
        layer: its name.
        shared: groups of layers that read one tensor, from layers.json.
    """
    return tuple(next((group for group in shared if layer in group), (layer,)))


def completed(table: Table, shared: Sequence[Sequence[str]]) -> dict[str, dict[str, dict[str, float]]]:
    """A table over whole num_bits with `float` = 0 added and activations shared.

    Args:
        table: every reader carries the whole harm of what it reads.
        shared: groups of layers that read one tensor, from layers.json.
    """
    with_float = {name: {kind: {**row, "float": 0.0} for kind, row in kinds.items()} for name, kinds in table.items()}
    return share_activations(with_float, shared)


def measured(table: Table, shared: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What a method that learns nothing returns, but for `cost`: `layers`, `raw`, `repairs`, `step_movement`.

    Args:
        table: as `completed`; harm may be negative or rise with num_bits, which `monotone` repairs.
        shared: as `completed`.
    """
    raw = completed(table, shared)
    harm, repairs = monotone(raw)
    return {"layers": harm, "raw": raw, "repairs": repairs, "step_movement": {}}


def monotone(table: Table) -> tuple[dict[str, dict[str, dict[str, float]]], list[dict[str, Any]]]:
    """Harm that never rises with num_bits, and what was changed to get there.

    From the most bits down, a smaller harm is raised to that of the next higher num_bits; so the lower num_bits gains
    nothing and costs nothing that was not measured. LIMPQ's code forbids the entry instead (harm 1e8).

    Returns:
        (the repaired table, [{layer, kind, num_bits, from, to}] in the table's order).
    """
    repaired: dict[str, dict[str, dict[str, float]]] = {}
    repairs: list[dict[str, Any]] = []
    for name, kinds in table.items():
        repaired[name] = {}
        for kind, row in kinds.items():
            least, new = 0.0, {}
            for bits in sorted(row, key=_bits, reverse=True):
                new[bits] = least = max(least, row[bits])
                if new[bits] != row[bits]:
                    repairs.append(
                        {
                            "layer": name,
                            "kind": kind,
                            "num_bits": _as_num_bits(bits),
                            "from": row[bits],
                            "to": new[bits],
                        }
                    )
            repaired[name][kind] = {bits: new[bits] for bits in row}
    return repaired, repairs


def check_table(table: Table, layers: Sequence[str], num_bits: Sequence[NumBits], where: str) -> None:
    """Complete, finite, not negative, 0 at `float`, never rising with num_bits.

    Raises:
        MixbitError: the first entry that is not.
    """
    wanted = {str(bits) for bits in num_bits} | {"float"}
    if set(table) != set(layers):
        raise MixbitError(where, "layers", expected=sorted(layers), got=sorted(table))
    for name in layers:
        for kind in KINDS:
            row = table[name].get(kind, {})
            place = f"{where}: {name}: {kind}"
            if set(row) != wanted:
                raise MixbitError(place, "num_bits", expected=sorted(wanted), got=sorted(row))
            bad = {bits: harm for bits, harm in row.items() if not (math.isfinite(harm) and harm >= 0)}
            if bad or row["float"] != 0:
                raise MixbitError(place, "harm", expected="finite, not negative, 0 at float", got=bad or row["float"])
            falling = [row[bits] for bits in sorted(row, key=_bits)]
            if falling != sorted(falling, reverse=True):
                raise MixbitError(place, "harm", expected="never rising with num_bits", got=falling)


def _bits(key: str) -> float:
    return math.inf if key == "float" else int(key)


def _as_num_bits(key: str) -> NumBits:
    return "float" if key == "float" else int(key)

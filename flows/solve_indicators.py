"""Harms for `mixbit solve` from files of indicators: one table of candidates and costs, judged by several seeds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.solve_table import MOST, Read, loaded
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.policy import Entry, NumBits
from policies.search import Harm, balance
from policies.table import Candidate

KINDS = ("weight", "activation")


def with_indicators(read: Read, path: Path) -> Read:
    """The problem with the harms of a file: activation harm plus weight harm, balanced as an experiment's.

    Args:
        read: the problem; its own harms are forgotten.
        path: an indicators.json, or just its layers: {layer: {weight: {num_bits: harm}, activation: {…}}}. Of bits that
            a layer has no choice about no harm is asked.

    Raises:
        ConfigError: every harm that is missing or none, a line each.
    """
    data = loaded(path)
    layers = data.get("layers", data) if isinstance(data, dict) else None
    if not isinstance(layers, dict):
        raise ConfigError([MisuseError(path.name, "", expected="an object: layer -> weight and activation")])
    faults: list[MixbitError] = []
    harms = {
        kind: {name: _harms(layers, (name, kind), row, faults) for name, row in read.table.items()} for kind in KINDS
    }
    if faults:
        told = (MisuseError(f"{path.name}: {one.where}", "", expected=one.expected, got=one.got) for one in faults)
        raise ConfigError([*told])
    alpha = balance(harms["weight"], harms["activation"])
    table: dict[str, dict[Entry, Candidate]] = {
        name: {
            (w, a): (harms["activation"][name][a] + alpha * harms["weight"][name][w], costs)
            for (w, a), (_, costs) in row.items()
        }
        for name, row in read.table.items()
    }
    return replace(read, table=table)


def _harms(
    layers: Mapping[str, Any], at: tuple[str, str], row: Mapping[Entry, Candidate], faults: list[MixbitError]
) -> Harm:
    """Harm by num_bits of one kind of one layer; what is missing becomes a fault."""
    bits: list[NumBits] = list(dict.fromkeys(entry[KINDS.index(at[1])] for entry in row))
    if len(bits) == 1:
        return dict.fromkeys(bits, 0.0)
    found: Harm = {}
    for each in bits:
        value: Any = layers
        for key in (*at, str(each)):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST:
            found[each] = float(value)
        else:
            faults.append(MisuseError(".".join((*at, str(each))), "", expected="a number from 0 to 1e300", got=value))
    return found

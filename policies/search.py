"""What an allocation is asked: harms from indicators, costs, latencies from devices' tables. Numbers only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixbit import costs
from mixbit.errors import MixbitError
from mixbit.latency import Table, cost_name, device_of, executed, limit_us
from mixbit.policy import Entry, NumBits
from policies.ilp import Allocation, allocate, least_of
from policies.pairs import Pair
from policies.table import Candidate, Number, Ties

# How far a limit of latency is stretched to either side for further candidates: by the table's error, within reason.
LEAST_STRETCH, MOST_STRETCH = 0.02, 0.1


@dataclass(frozen=True)
class Search:
    """What the allocation is asked. Limits of latency are those of layers and boundaries: the table's offset is off.

    `whole` are the limits as a user understands them; `tables` are by device.
    """

    table: dict[str, dict[Entry, Candidate]]
    limits: dict[str, Number]
    ties: Ties
    pairs: tuple[Pair, ...]
    whole: dict[str, Number]
    tables: dict[str, Table]
    time_limit_s: float

    def best(self) -> Allocation:
        """The least harm within the limits."""
        return allocate(self.table, self.limits, self.ties, self.time_limit_s, self.pairs)

    def stretched(self, sign: int) -> "Search":
        """With more (1) or less (-1) latency allowed, by the error of each table."""
        limits = dict(self.limits)
        for device, table in self.tables.items():
            share = sign * min(MOST_STRETCH, max(LEAST_STRETCH, table.error))
            limits[cost_name(device)] = _inner(float(self.whole[cost_name(device)]) * (1 + share), table)
        return replace(self, limits=limits)

    def fastest(self, device: str) -> Allocation:
        """The least latency on a device within the other limits, and of such policies the least harmful."""
        cost = cost_name(device)
        asked: dict[str, Any] = {"time_limit_s": self.time_limit_s, "pairs": self.pairs}
        others = {name: limit for name, limit in self.limits.items() if device_of(name) is None}
        least = least_of(cost, self.table, others, self.ties, **asked)
        if not least.policy:
            return least
        found = allocate(self.table, others | {cost: least.costs[cost]}, self.ties, **asked)
        return found if found.policy else least


def search_of(
    rows: Mapping[str, Mapping[Entry, Candidate]],
    limits: Mapping[str, Number],
    timed: Mapping[str, str],
    *,
    tables: Mapping[str, Table],
    ties: Ties,
    time_limit_s: float,
) -> Search:
    """A search with the latency of some devices among its costs.

    Args:
        rows: layer -> entry -> (harm, costs).
        limits: cost name -> most of it, of costs in `rows`.
        timed: `latency[DEVICE]` -> limit, as a user writes it.
        tables: by device.
        ties: layers that share bits.
        time_limit_s: of each allocation.
    """
    whole = dict(limits) | {
        name: limit_us(limit, tables[str(device_of(name))].reference_us) for name, limit in timed.items()
    }
    inner, table = dict(whole), {name: dict(row) for name, row in rows.items()}
    for device, found in tables.items():
        name = cost_name(device)
        inner[name] = _inner(whole[name], found)
        table = _with_latency(table, name, found)
    pairs = tuple(
        Pair(cost_name(device), pair, us, us) for device, one in tables.items() for pair, us in one.boundaries.items()
    )
    return Search(table, inner, ties, pairs, whole, dict(tables), time_limit_s)


def _inner(limit: Number, table: Table) -> float:
    """What layers and boundaries may take together."""
    return max(0.0, float(limit) - table.offset_us)


def _with_latency(
    rows: Mapping[str, Mapping[Entry, Candidate]], cost: str, table: Table
) -> dict[str, dict[Entry, Candidate]]:
    return {
        name: {
            entry: (harm, {**given, cost: table.layers[name][executed(entry)]}) for entry, (harm, given) in row.items()
        }
        for name, row in rows.items()
    }


def harm_table(
    layers: costs.Layers, entries: Mapping[str, tuple[Entry, ...]], indicators: Mapping[str, Any], alpha: float
) -> dict[str, dict[Entry, Candidate]]:
    """What the allocation reads: layer -> entry -> (harm, costs); harm = activation harm + alpha * weight harm.

    Activation harm of a tensor with k readers comes as 1/k each. Bits that a layer has no choice about have no harm
    here.

    Raises:
        MixbitError: harm of a candidate is missing from the indicators.
    """
    table: dict[str, dict[Entry, Candidate]] = {}
    for layer in costs.run_layers(layers):
        name = layer["name"]
        weight = _harm_of(name, "weight", {w for w, _ in entries[name]}, indicators)
        activation = _harm_of(name, "activation", {a for _, a in entries[name]}, indicators)
        table[name] = {
            (w, a): (activation[a] + alpha * weight[w], dict[str, Number](costs.layer_costs(layer, (w, a))))
            for w, a in entries[name]
        }
    return table


def _harm_of(name: str, kind: str, bits: set[NumBits], indicators: Mapping[str, Any]) -> dict[NumBits, float]:
    if len(bits) == 1:
        return dict.fromkeys(bits, 0.0)
    rows = indicators.get(name, {}).get(kind, {})
    for each in bits:
        if str(each) not in rows:
            hint = "Indicators must cover every candidate num_bits"
            raise MixbitError(
                f"indicators: {name}", f"no harm of {kind} bits", expected=each, got=list(rows), hint=hint
            )
    return {each: rows[str(each)] for each in bits}

"""A search with latencies among its costs, by the tables of devices. Numbers only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mixbit.latency import Table, cost_name, device_of, executed, limit_us
from mixbit.policy import Entry
from policies.ilp import Allocation, allocate, least_of
from policies.pairs import Pair
from policies.search import Search
from policies.table import Candidate, Number

# How far a limit of latency is stretched to either side for further candidates: by the table's error, within reason.
LEAST_STRETCH, MOST_STRETCH = 0.02, 0.1


@dataclass(frozen=True)
class TimedSearch(Search):
    """A search whose limits of latency are those of layers and boundaries: a table's offset is off.

    Attributes:
        whole: the limits as a user understands them.
        tables: by device; empty where no latency is limited.
    """

    whole: Mapping[str, Number] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)

    def best(self) -> Allocation:
        """The least harm within the limits."""
        return allocate(self.table, self.limits, self.ties, self.time_limit_s, self.pairs)

    def stretched(self, sign: int) -> "TimedSearch":
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


def with_latencies(search: Search, timed: Mapping[str, str], tables: Mapping[str, Table]) -> TimedSearch:
    """A search with the latencies of some devices among its costs and limits.

    Args:
        search: without them.
        timed: `latency[DEVICE]` -> limit, as a user writes it.
        tables: of those devices.
    """
    limits_us = {name: limit_us(limit, tables[str(device_of(name))].reference_us) for name, limit in timed.items()}
    whole: dict[str, Number] = {**search.limits, **limits_us}
    inner, rows, pairs = dict(whole), search.table, []
    for device, table in tables.items():
        name = cost_name(device)
        inner[name] = _inner(limits_us[name], table)
        rows = _with_latency(rows, name, table)
        pairs += [Pair(name, layers, *us) for layers, us in table.boundaries.items()]
    given = {one.name: getattr(search, one.name) for one in fields(Search)}
    given |= {"table": rows, "limits": inner, "pairs": tuple(pairs)}
    return TimedSearch(**given, whole=whole, tables=dict(tables))


def _inner(limit_us: float, table: Table) -> float:
    """What layers and boundaries may take together."""
    return max(0.0, limit_us - table.offset_us)


def _with_latency(
    rows: Mapping[str, Mapping[Entry, Candidate]], cost: str, table: Table
) -> dict[str, dict[Entry, Candidate]]:
    return {
        name: {
            entry: (harm, {**given, cost: table.layers[name][executed(entry)]}) for entry, (harm, given) in row.items()
        }
        for name, row in rows.items()
    }

"""A limit on peak activation memory as limits of an allocation: one on each step that can be the largest."""

from collections.abc import Mapping

from mixbit.activation_memory import Entries, is_row, of_layer, rows
from mixbit.entries import Layers
from mixbit.limits import PEAK
from mixbit.policy import Entry
from policies.ilp import allocate
from policies.search import Search
from policies.table import Candidate, Number, Table


def with_peak(
    table: Table, limits: Mapping[str, Number], layers: Layers, entries: Entries
) -> tuple[dict[str, dict[Entry, Candidate]], dict[str, Number]]:
    """The table and its limits with the rows of the peak in place of the peak.

    Args:
        table: layer -> entry -> (harm, costs).
        limits: with `peak_activation_bytes` among them.
        layers: content of layers.json.
        entries: candidates of each layer.
    """
    peak = rows(layers, entries)
    made: dict[str, dict[Entry, Candidate]] = {
        name: {
            entry: (harm, {**costs, **{row.name: of_layer(row, layers, name, entry) for row in peak}})
            for entry, (harm, costs) in found.items()
        }
        for name, found in table.items()
    }
    others = {name: limit for name, limit in limits.items() if name != PEAK}
    return made, others | {row.name: limits[PEAK] for row in peak}


def least_peak_of(search: Search) -> int:
    """The smallest limit on the peak with which a policy fits, other limits kept where they can be.

    Feasible is what an allocation finds a policy for, so the limit is halved down to it.
    """
    names = [name for name in search.limits if is_row(name)]
    others: dict[str, Number] = {name: limit for name, limit in search.limits.items() if name not in names}
    if not _fits(search, others):
        others = {}
    sums = [
        [
            sum(pick(int(costs[name]) for _, costs in row.values()) for row in search.table.values())
            for pick in (min, max)
        ]
        for name in names
    ]
    low, high = (max((ends[end] for ends in sums), default=0) for end in (0, 1))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(search, {**others, **dict.fromkeys(names, middle)}) else (middle + 1, high)
    return low


def _fits(search: Search, limits: Mapping[str, Number]) -> bool:
    return bool(allocate(search.table, limits, search.ties, search.time_limit_s, search.pairs).policy)

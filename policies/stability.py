"""How far an answer can be trusted: over which budgets it stays best, and what other seeds would have answered.

Our own definitions. A flip is a layer whose entry differs between two policies. The rank correlation is Spearman's,
over the harms of all entries of all layers, equal harms at their mean rank.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mixbit.errors import MisuseError
from mixbit.policy import Policy
from policies.front import front
from policies.ilp import Allocation, allocate
from policies.table import Number, Table, Ties, exact, unit_of

LESS_HARM = "less harm"


@dataclass(frozen=True)
class Range:
    """The budgets of one cost, the other limits as they are, at which a policy is the answer.

    Attributes:
        least: what the policy costs; with less it doesn't fit.
        below: from here on a policy of less harm fits; None: none has less, whatever it costs.
    """

    least: int | float
    below: int | float | None


def stays_optimal(
    table: Table,
    limits: Mapping[str, Number],
    policy: Policy,
    ties: Ties | None = None,
    time_limit_s: float = 60.0,
) -> dict[str, Range]:
    """The range of each limit over which a policy stays optimal.

    Where time or gap leave a doubt, `below` is proven all the same: it may be too small, never too large.

    Args:
        table: as `policies.ilp.allocate`.
        limits: under which the policy is optimal.
        policy: layer -> entry.
        ties: layers that share bits.
        time_limit_s: for each limit.

    Raises:
        MisuseError: as `allocate`.
    """
    harms = {name: {e: exact(harm) for e, (harm, _) in row.items()} for name, row in table.items()}
    step = Fraction(1, unit_of(harm for row in harms.values() for harm in row.values()))
    less = sum(harms[name][entry] for name, entry in policy.items()) - step
    ranges = {}
    for cost in sorted(limits):
        asked = {**limits, LESS_HARM: less}
        below = None if less < 0 else _least(table, cost, asked, ties, time_limit_s)
        ranges[cost] = Range(_total(table, policy, cost), below)
    return ranges


def _total(table: Table, policy: Policy, cost: str) -> int | float:
    total = sum(exact(table[name][entry][1][cost]) for name, entry in policy.items())
    return total if isinstance(total, int) else float(total)


def _least(
    table: Table, cost: str, limits: Mapping[str, Number], ties: Ties | None, time_limit_s: float
) -> int | float | None:
    """The least of a cost within the other limits."""
    turned = {
        name: {e: (costs[cost], {**costs, LESS_HARM: own}) for e, (own, costs) in row.items()}
        for name, row in table.items()
    }
    others = {name: limit for name, limit in limits.items() if name != cost}
    found = allocate(turned, others, ties, time_limit_s)
    if found.status == "infeasible":
        return None
    return found.lower_bound if found.gap or not found.policy else found.costs[cost]


@dataclass(frozen=True)
class Agreement:
    """What several tables answer to one question.

    Attributes:
        answers: by table.
        flips: (table, table) -> how many layers differ.
        correlations: (table, table) -> rank correlation of their harms; None where one has no order.
    """

    answers: Mapping[str, Allocation]
    flips: Mapping[tuple[str, str], int]
    correlations: Mapping[tuple[str, str], float | None]

    @property
    def mean_flips(self) -> float:
        """Over all pairs of tables; 0 for one table."""
        return sum(self.flips.values()) / max(1, len(self.flips))

    @property
    def most_flips(self) -> int:
        """Of the two tables that differ most."""
        return max(self.flips.values(), default=0)


def agreement(
    tables: Mapping[str, Table], limits: Mapping[str, Number], ties: Ties | None = None, time_limit_s: float = 60.0
) -> Agreement:
    """Solve each table under the same limits and compare the answers.

    Args:
        tables: name -> harms of one seed or proxy draw; the same layers, entries and costs everywhere.
        limits: cost name -> most of it.
        ties: layers that share bits.
        time_limit_s: for each table.

    Raises:
        MisuseError: tables of other layers or entries; no policy fits; and as `allocate`.
    """
    first = next(iter(tables))
    for name, table in tables.items():
        _check_alike(first, tables[first], name, table)
    answers = {name: front(table, [limits], ties, time_limit_s)[0] for name, table in tables.items()}
    for name, found in answers.items():
        if not found.policy:
            raise MisuseError(name, f"{found.status}: no policy to compare")
    pairs = list(itertools.combinations(tables, 2))
    flips = {(a, b): flipped(answers[a].policy, answers[b].policy) for a, b in pairs}
    correlations = {(a, b): rank_correlation(_harms(tables[a]), _harms(tables[b])) for a, b in pairs}
    return Agreement(answers, flips, correlations)


def flipped(one: Policy, other: Policy) -> int:
    """How many layers have another entry; both name the same layers."""
    return sum(other[name] != entry for name, entry in one.items())


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's, -1 to 1; None where all of one side is equal."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other)]
    spread = [float(np.sqrt((each**2).sum())) for each in ranks]
    return float((ranks[0] * ranks[1]).sum() / (spread[0] * spread[1])) if all(spread) else None


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks about their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    centred: npt.NDArray[np.float64] = ranks - ranks.mean()
    return centred


def _harms(table: Table) -> list[float]:
    return [float(row[entry][0]) for _, row in sorted(table.items()) for entry in sorted(row, key=str)]


def _check_alike(first: str, wanted: Table, name: str, table: Table) -> None:
    for layer in sorted(set(wanted) | set(table)):
        if set(wanted.get(layer, ())) != set(table.get(layer, ())):
            raise MisuseError(
                f"{name}: {layer}", f"has other entries than in {first}", hint="Compare tables of one net"
            )

"""Allocation with pair terms: a change of precision between neighbours costs time that no single layer's entry tells.

One product of two binaries per neighbours and direction, linearised exactly: with F = 1 for a float layer, u >= 0 and
u >= F_a - F_b are F_a (1 - F_b) wherever u costs something. HiGHS solves the whole ILP; as in `solver.py` it is scaled
on the way in and not believed on the way out: sums are taken again in integers, its dual bound is the only evidence.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mixbit.policy import Entry, NumBits, is_float
from policies.solver import MARGIN, ROOM, TIGHTER, run
from policies.table import Groups, Number, Table, Ties, by_bits, exact, unit_of

HARM = "harm"

Rows = Mapping[str, Mapping[Entry, int]]


@dataclass(frozen=True)
class Pair:
    """What it costs when exactly one of two layers is float; >= 0.

    Attributes:
        cost: name of the cost that it is part of.
        layers: the one that writes, the one that reads.
        float_int8: cost when the first is float and the second is not.
        int8_float: cost when the second is float and the first is not.
    """

    cost: str
    layers: tuple[str, str]
    float_int8: Number
    int8_float: Number

    def of(self, first: Entry, second: Entry) -> Number:
        """Its cost under two entries."""
        if is_float(first) == is_float(second):
            return 0
        return self.float_int8 if is_float(first) else self.int8_float


@dataclass(frozen=True)
class Least:
    """The least total found (None: no policy known), and what no policy is below."""

    policy: dict[str, Entry] | None
    bound: int
    infeasible: bool = False


class PairProblem:
    """A table with its pairs in integers; `harm` is one cost among the others."""

    def __init__(self, table: Table, ties: Ties, pairs: Sequence[Pair]) -> None:
        """Costs become whole numbers of `units`; the table was checked by `exact_problem`."""
        names = sorted(next(iter(next(iter(table.values())).values()))[1])
        values = {
            name: {layer: {e: exact(c[1][name]) for e, c in row.items()} for layer, row in sorted(table.items())}
            for name in names
        }
        values[HARM] = {layer: {e: exact(c[0]) for e, c in row.items()} for layer, row in sorted(table.items())}
        terms = {name: [pair for pair in pairs if pair.cost == name] for name in values}
        self.ties = ties
        self.units = {
            name: unit_of([v for row in rows.values() for v in row.values()] + [w for p in terms[name] for w in _us(p)])
            for name, rows in values.items()
        }
        self.costs: dict[str, Rows] = {
            name: {
                layer: {e: int(v * self.units[name]) for e, v in sorted(row.items(), key=by_bits)}
                for layer, row in rows.items()
            }
            for name, rows in values.items()
        }
        self.pairs = {
            name: [Pair(name, p.layers, *(int(w * self.units[name]) for w in _us(p))) for p in found]
            for name, found in terms.items()
        }

    def total(self, cost: str, policy: Mapping[str, Entry]) -> int:
        """What a policy costs, pairs included."""
        single = sum(row[policy[layer]] for layer, row in self.costs[cost].items())
        return single + sum(int(p.of(policy[p.layers[0]], policy[p.layers[1]])) for p in self.pairs[cost])

    def fits(self, policy: Mapping[str, Entry], limits: Mapping[str, int]) -> bool:
        """Whether every limit holds."""
        return all(self.total(cost, policy) <= limit for cost, limit in limits.items())

    def minimise(self, cost: str, limits: Mapping[str, int], deadline: float) -> Least:
        """The least of one cost (or of `harm`) within limits on others.

        Args:
            cost: what is to be small.
            limits: cost -> most of it, in `units`.
            deadline: when to stop, in seconds of the monotonic clock.
        """
        found = self._shrunk(cost, limits, deadline)
        if found.policy is not None or found.infeasible:
            return found
        names, known = sorted(limits), dict[str, int]()
        for name in names:
            # None of the solver's words, but the least of each limit under those before it, tells that there is none.
            least = self._shrunk(name, known, deadline)
            if least.infeasible or least.bound > limits[name]:
                return Least(None, found.bound, infeasible=True)
            if least.policy is None:
                return found
            known[name] = limits[name]
            if self.fits(least.policy, limits):
                return Least(least.policy, found.bound)
        return found

    def _shrunk(self, cost: str, limits: Mapping[str, int], deadline: float) -> Least:
        """Solve; until the answer is proven, again without options that are hopeless: a huge harm hides small ones."""
        rows = {layer: list(row) for layer, row in self.costs[cost].items()}
        bound, best = 0, None
        while True:
            rows = self._possible(rows, limits)
            if not all(rows.values()):
                return Least(best, bound, infeasible=best is None)
            low = {layer: min(self.costs[cost][layer][e] for e in entries) for layer, entries in rows.items()}
            floor = sum(low.values())
            policy, solved = _Ilp(self, cost, limits, rows, low).solve(deadline)
            bound = max(bound, floor, solved)
            if policy is None:
                return Least(best, bound)
            best = min((p for p in (best, policy) if p is not None), key=lambda p: self.total(cost, p))
            slack, size = self.total(cost, best) - floor, sum(map(len, rows.values()))
            rows = {n: [e for e in row if self.costs[cost][n][e] - low[n] <= slack] for n, row in rows.items()}
            done = bound >= self.total(cost, best) or sum(map(len, rows.values())) == size
            if done or time.monotonic() > deadline:
                return Least(best, min(bound, self.total(cost, best)))

    def _possible(self, rows: Mapping[str, list[Entry]], limits: Mapping[str, int]) -> dict[str, list[Entry]]:
        """Options that keep every limit beside the cheapest of everything else."""
        kept = {layer: list(entries) for layer, entries in rows.items()}
        for name, limit in limits.items():
            costs = self.costs[name]
            least = {layer: min((costs[layer][e] for e in entries), default=0) for layer, entries in kept.items()}
            room = limit - sum(least.values())
            kept = {layer: [e for e in row if costs[layer][e] - least[layer] <= room] for layer, row in kept.items()}
        return kept


class _Ilp:
    """One PuLP model."""

    def __init__(
        self,
        problem: PairProblem,
        cost: str,
        limits: Mapping[str, int],
        rows: Mapping[str, list[Entry]],
        low: Mapping[str, int],
    ) -> None:
        self._problem, self._cost, self._limits, self._rows, self._low = problem, cost, limits, rows, low
        costs = problem.costs[cost]
        widest = max(costs[layer][e] - low[layer] for layer, row in rows.items() for e in row)
        widest = max([widest, *(int(w) for p in problem.pairs[cost] for w in _us(p))])
        self._span = max(1, widest)

    def solve(self, deadline: float) -> tuple[dict[str, Entry] | None, int]:
        """(a policy within the limits, or None; a lower bound of the total)."""
        floor = sum(self._low.values())
        bound = floor
        for tighter in TIGHTER:
            model, x = self._model(tighter)
            solved = run(model, deadline, gap=0.0)
            if tighter == TIGHTER[0]:
                dual = model.solverModel.getInfo().mip_dual_bound
                bound += math.ceil((Fraction(dual) - MARGIN) * self._span) if math.isfinite(dual) else 0
            policy = _picked(x) if solved else None
            if policy is None or self._problem.fits(policy, self._limits):
                return policy, max(bound, floor)
        return None, max(bound, floor)

    def _model(self, tighter: float) -> tuple[Any, dict[str, dict[Entry, Any]]]:
        import pulp

        model = pulp.LpProblem("pairs", pulp.LpMinimize)
        x = {
            layer: {e: model.add_variable(f"x{i}_{j}", 0, 1, cat="Integer") for j, e in enumerate(entries)}
            for i, (layer, entries) in enumerate(self._rows.items())
        }
        for row in x.values():
            model += pulp.LpAffineExpression([(v, 1.0) for v in row.values()]) == 1
        for equal in _tied(x, self._problem.ties):
            model += pulp.LpAffineExpression(equal) == 0
        changes = self._changes(model, x)
        objective = self._terms(self._cost, x, changes, self._low, 1.0 / self._span)
        for name, limit in self._limits.items():
            costs = self._problem.costs[name]
            least = {layer: min(costs[layer][e] for e in row) for layer, row in x.items()}
            room = limit - sum(least.values())
            if terms := self._terms(name, x, changes, least, ROOM / max(room, 1)):
                model += pulp.LpAffineExpression(terms) <= (ROOM * (1 - tighter) if room else 0.0)
        model.setObjective(pulp.LpAffineExpression(objective))
        return model, x

    def _changes(self, model: Any, x: Mapping[str, Mapping[Entry, Any]]) -> dict[tuple[str, str], Any]:
        """(float layer, neighbour that is not) -> a variable that is 1 there."""
        import pulp

        changes: dict[tuple[str, str], Any] = {}
        for pair in [p for found in self._problem.pairs.values() for p in found]:
            for one, other in (pair.layers, pair.layers[::-1]):
                if (one, other) in changes:
                    continue
                changes[one, other] = change = model.add_variable(f"u{len(changes)}", 0, 1, cat="Continuous")
                floats = [(v, 1.0) for e, v in x[one].items() if is_float(e)]
                floats += [(v, -1.0) for e, v in x[other].items() if is_float(e)]
                model += pulp.LpAffineExpression([*floats, (change, -1.0)]) <= 0
        return changes

    def _terms(
        self, cost: str, x: Mapping[str, Mapping[Entry, Any]], changes: Any, low: Mapping[str, int], scale: float
    ) -> list[tuple[Any, float]]:
        costs = self._problem.costs[cost]
        terms = [(v, (costs[n][e] - low[n]) * scale) for n, row in x.items() for e, v in row.items()]
        # Two pairs may be of the same layers, and PuLP takes the last of two terms of one variable.
        sums: Counter[tuple[str, str]] = Counter()
        for pair in self._problem.pairs[cost]:
            sums[pair.layers] += int(pair.float_int8)
            sums[pair.layers[::-1]] += int(pair.int8_float)
        terms += [(changes[layers], us * scale) for layers, us in sums.items()]
        return [(v, factor) for v, factor in terms if factor]


def _tied(x: Mapping[str, Mapping[Entry, Any]], ties: Ties) -> list[list[tuple[Any, float]]]:
    """Sums that are 0 where layers share bits."""
    both, weight, activation = (lambda e: e), (lambda e: e[0]), (lambda e: e[1])
    shared: list[tuple[Groups, Any]] = [(ties.both, both), (ties.weight, weight), (ties.activation, activation)]
    rows = []
    for groups, of in shared:
        for first, *others in groups:
            for other in others:
                values: dict[Entry | NumBits, None] = dict.fromkeys(of(e) for name in (first, other) for e in x[name])
                for value in values:
                    terms = [(v, 1.0) for e, v in x[first].items() if of(e) == value]
                    rows.append(terms + [(v, -1.0) for e, v in x[other].items() if of(e) == value])
    return rows


def _picked(x: Mapping[str, Mapping[Entry, Any]]) -> dict[str, Entry] | None:
    """The entries whose variables are nearer to 1; None unless that is exactly one per layer."""
    on = {layer: [e for e, v in row.items() if (v.varValue or 0.0) > 0.5] for layer, row in x.items()}
    return {layer: entries[0] for layer, entries in on.items()} if all(len(e) == 1 for e in on.values()) else None


def _us(pair: Pair) -> tuple[int | Fraction, int | Fraction]:
    return exact(pair.float_int8), exact(pair.int8_float)

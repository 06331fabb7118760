"""Several limits, for many values of them: prices that bound, policies that fit, and what is known shared by all.

Every policy met tells how the bound depends on the prices, whatever the limits are, so all budgets share one small
linear program over the policies (Dantzig and Wolfe 1960, https://doi.org/10.1287/opre.8.1.101), whose duals are the
next prices. Our own: the bound is taken in floats less their rounding error, and policies are mended by single swaps at
those prices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.bound import Picks, Prices, fits
from policies.table import Option, Problem

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST_ROUNDS = 60
# Where bound and master program are this near, more rounds are worth little; of the objective.
CLOSE = 1e-6
GOOD_ENOUGH = 2e-5
# Prices raised and lowered by these shares lead to other policies; tried until one is that near the bound.
ENOUGH = 9e-5
NEARBY = tuple(sign * step / 4000 for step in range(1, 11) for sign in (1, -1))
SWAPS = 100
# Of sums of as many floats as a table has layers; far more than needed.
ROUNDING = 1e-13
UNIT = 1 << 60


@dataclass(frozen=True)
class _Met:
    """A policy: per slot the option, per block the branch; objective and costs over the least of everything."""

    options: Whole
    branches: Whole
    objective: float
    costs: Floats


@dataclass(frozen=True)
class Bounded:
    """The best picks known (None: none), a lower bound of the objective, and the prices behind it."""

    picks: Picks | None
    bound: int
    prices: Prices


class Dual:
    """One problem, whatever its limits; a slot is a part of a branch of a block."""

    def __init__(self, problem: Problem) -> None:
        """Its limits count no more than how many there are."""
        self._problem = problem
        branches = [(b, branch) for b, block in enumerate(problem.blocks) for branch in block.branches]
        slots = [(r, part) for r, (_, branch) in enumerate(branches) for part in branch]
        self._slots: list[Sequence[Option]] = [part for _, part in slots]
        self._block_of = np.array([b for b, _ in branches])
        self._branch_of = np.array([r for r, _ in slots])
        self._first_slot = np.searchsorted(self._branch_of, np.arange(len(branches)))
        self._first_branch = np.searchsorted(self._block_of, np.arange(len(problem.blocks)))
        self._low, self._least = self._floors()
        self._span = max(
            1, *(max(o.objective for o in part) - low for part, low in zip(self._slots, self._low, strict=True))
        )
        self._scale = [
            max(1, sum(max(o.costs[k] for o in part) for part in self._slots)) for k in range(len(problem.limits))
        ]
        self._fill()
        self._master = _Master(len(problem.limits), float(len(self._slots)) * 2)
        self._rows = np.arange(len(self._slots))

    def _floors(self) -> tuple[list[int], list[list[int]]]:
        """The least objective and costs of each slot: equal for the branches of a block, so that sums compare."""
        low, least = [], []
        for block in self._problem.blocks:
            for _ in block.branches:
                for p in range(len(block.parts)):
                    every = [o for branch in block.branches for o in branch[p]]
                    low.append(min(o.objective for o in every))
                    least.append([min(o.costs[k] for o in every) for k in range(len(self._problem.limits))])
        return low, least

    def _fill(self) -> None:
        widest = max(map(len, self._slots))
        self._objectives = np.full((len(self._slots), widest), np.inf)
        self._costs = np.zeros((len(self._problem.limits), len(self._slots), widest))
        for s, part in enumerate(self._slots):
            for i, option in enumerate(part):
                self._objectives[s, i] = (option.objective - self._low[s]) / self._span
                for k, scale in enumerate(self._scale):
                    self._costs[k, s, i] = (option.costs[k] - self._least[s][k]) / scale
        first = [self._first_slot[r] for r in self._first_branch]
        parts = [len(block.parts) for block in self._problem.blocks]
        counted = [s for at, n in zip(first, parts, strict=True) for s in range(at, at + n)]
        self._floor = sum(self._low[s] for s in counted)
        self._floor_costs = [sum(self._least[s][k] for s in counted) for k in range(len(self._scale))]

    def solve(self, limits: Sequence[int]) -> Bounded:
        """A policy and a bound; the gap between them is what is not known.

        Args:
            limits: each at least the least of its cost alone.
        """
        room = np.array([(c - f) / s for c, f, s in zip(limits, self._floor_costs, self._scale, strict=True)])
        problem = Problem(self._problem.blocks, tuple(limits))
        best, bound, bound_at = None, 0.0, np.zeros(len(room))
        for _ in range(MOST_ROUNDS):
            value, prices = self._master.prices(room)
            met = self._cheapest(prices)
            priced = met.objective + float(prices @ met.costs)
            at = priced - float(prices @ room) - ROUNDING * (priced + float(prices @ room))
            if at > bound:
                bound, bound_at = at, prices
            best = self._better(best, met, prices, room, problem)
            if not self._master.add(met) or value - bound <= CLOSE * self._whole(value):
                break
            if best is not None and self._gap(best, bound) <= GOOD_ENOUGH:
                break
        for share in NEARBY:
            if best is None or self._gap(best, bound) > ENOUGH:
                best = self._better(best, self._cheapest(bound_at * (1 + share)), bound_at, room, problem)
        exact = self._floor + max(0, math.floor(Fraction(bound) * self._span))
        return Bounded(None if best is None else self._picks(best), exact, self._prices(bound_at))

    def _better(self, best: _Met | None, met: _Met, prices: Floats, room: Floats, problem: Problem) -> _Met | None:
        """The best policy known or, if that is better, another one mended."""
        mended = self._mended(met, prices, room)
        if mended is None:
            return best
        self._master.add(mended)
        better = best is None or mended.objective < best.objective
        return mended if better and fits(self._picks(mended), problem) else best

    def _gap(self, best: _Met, bound: float) -> float:
        whole = self._whole(best.objective)
        return (best.objective - bound) / whole if whole else 0.0

    def _whole(self, objective: float) -> float:
        """An objective that counts from 0; infinite where what is left to choose is nothing beside the floor."""
        try:
            return objective + self._floor / self._span
        except OverflowError:
            return math.inf

    def _cheapest(self, prices: Floats) -> _Met:
        """The best policy when limits are priced and not enforced."""
        weighed = self._objectives + np.tensordot(prices, self._costs, 1)
        options = np.argmin(weighed, axis=1)
        sums = np.add.reduceat(weighed[self._rows, options], self._first_slot)
        least = np.minimum.reduceat(sums, self._first_branch)[self._block_of]
        taken = np.flatnonzero(sums <= least)
        _, first = np.unique(self._block_of[taken], return_index=True)
        return self._met(options, taken[first])

    def _met(self, options: Whole, branches: Whole) -> _Met:
        on = self._on(branches)
        objective = float(self._objectives[self._rows, options][on].sum())
        return _Met(options, branches, objective, self._costs[:, self._rows, options][:, on].sum(axis=1))

    def _on(self, branches: Whole) -> npt.NDArray[np.bool_]:
        """Slots of the branches that are taken."""
        return np.isin(self._branch_of, branches)

    def _mended(self, met: _Met, prices: Floats, room: Floats) -> _Met | None:
        """Swapped within its branches: until it fits, then while a swap lowers the objective and fits."""
        options, on = met.options.copy(), self._on(met.branches)[:, None] & np.isfinite(self._objectives)
        weighed = self._objectives + np.tensordot(prices, self._costs, 1)
        costs = met.costs.copy()
        for _ in range(SWAPS):
            more = self._costs - self._costs[:, self._rows, options][:, :, None]
            over = np.maximum(costs - room, 0)
            if over.any():
                after = np.maximum((costs - room)[:, None, None] + more, 0)
                eased = np.where(on, (np.minimum(over, 1)[:, None, None] - after).sum(axis=0), 0.0)
                loss = weighed - weighed[self._rows, options][:, None]
                rate = np.where(eased > 0, np.maximum(loss, 0) / np.where(eased > 0, eased, 1), np.inf)
                at = int(np.argmin(rate))
                if not np.isfinite(rate.flat[at]):
                    return None
            else:
                gained = self._objectives - self._objectives[self._rows, options][:, None]
                allowed = on & (more <= (room - costs)[:, None, None] * (1 - ROUNDING)).all(axis=0) & (gained < 0)
                if not allowed.any():
                    break
                at = int(np.argmin(np.where(allowed, gained, 0.0)))
            slot, option = divmod(at, self._objectives.shape[1])
            costs += self._costs[:, slot, option] - self._costs[:, slot, options[slot]]
            options[slot] = option
        return self._met(options, met.branches) if not (costs > room).any() else None

    def _picks(self, met: _Met) -> Picks:
        picks = []
        for b, r in enumerate(met.branches):
            slots = range(self._first_slot[r], self._first_slot[r] + len(self._problem.blocks[b].parts))
            picks.append(tuple(self._slots[s][met.options[s]] for s in slots))
        return tuple(picks)

    def _prices(self, prices: Floats) -> Prices:
        wanted = [Fraction(p) * self._span / s for p, s in zip(prices.tolist(), self._scale, strict=True)]
        small = min((price for price in wanted if price), default=Fraction(1))
        unit = UNIT << max(0, math.ceil(1 / small).bit_length())
        return Prices(unit, tuple(round(price * unit) for price in wanted))


class _Master:
    """The linear program over the policies met: the least objective of a mix of them within the limits."""

    def __init__(self, limits: int, most: float) -> None:
        import highspy

        self._highs: Any = highspy.Highs()
        for option, value in (("output_flag", False), ("threads", 1), ("dual_feasibility_tolerance", 1e-10)):
            self._highs.setOptionValue(option, value)
        self._most = most
        self._known: set[bytes] = set()
        self._highs.addRow(1.0, 1.0, 0, [], [])
        for _ in range(limits):
            self._highs.addRow(-highspy.kHighsInf, 0.0, 0, [], [])
        self._limits = limits
        self._column(most, np.zeros(limits))

    def add(self, met: _Met) -> bool:
        """Whether the policy is new."""
        key = met.costs.tobytes() + np.float64(met.objective).tobytes()
        if key in self._known:
            return False
        self._known.add(key)
        self._column(met.objective, met.costs)
        return True

    def prices(self, room: Floats) -> tuple[float, Floats]:
        """(the least objective of a mix, a price per limit)."""
        import highspy

        for k, value in enumerate(room):
            self._highs.changeRowBounds(k + 1, -highspy.kHighsInf, float(value))
        self._highs.run()
        duals = np.array(self._highs.getSolution().row_dual[1:])
        return float(self._highs.getInfo().objective_function_value), np.maximum(0.0, -duals)

    def _column(self, objective: float, costs: Floats) -> None:
        import highspy

        index = np.arange(self._limits + 1, dtype=np.int32)
        values = np.concatenate(([1.0], costs))
        self._highs.addCol(float(objective), 0.0, highspy.kHighsInf, self._limits + 1, index, values)

"""Every budget in one call: what one solves is known to the next.

One cost: the exact optimum of each budget (`policies/knapsack.py`). Several: a policy and a bound within 1e-4
(`policies/dual.py`), where that is not enough after an exact search of what the bound leaves. What neither settles is
solved by itself, by `policies.ilp.allocate`.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from mixbit.errors import MisuseError
from mixbit.policy import Entry
from policies.bound import Picks, least_costs, objective_of, without_hopeless, without_impossible
from policies.dual import Bounded, Dual
from policies.exact_search import search
from policies.hull import Hull, hull_of
from policies.ilp import ALLOWED_GAP, Allocation, Found, allocate, answer, plain
from policies.knapsack import Knapsack
from policies.table import Exact, Number, Problem, Table, Ties, exact_problem

# Partial policies of the exact search behind a bound of several costs.
MOST_STATES = 100_000
# Tables of this many layers are searched until nothing is in doubt.
SMALL = 30
# Of the allowed gap, how far above the bound the search looks first.
FIRST_REACH = Fraction(1, 4)


@dataclass(frozen=True)
class Supported:
    """A policy that is best at some price of a cost.

    Attributes:
        cost: of that cost.
        harm: of the policy.
        changed: layer -> its entry, where it differs from the supported policy before; of the first, every layer.
    """

    cost: int | float
    harm: float
    changed: Mapping[str, Entry]


def supported(table: Table, cost: str, ties: Ties | None = None) -> list[Supported]:
    """All supported policies, cheapest first: the corners of the lower convex hull of (cost, harm).

    Args:
        table: as `policies.ilp.allocate`.
        cost: name of the one cost.
        ties: layers that share bits.

    Raises:
        MisuseError: as `allocate`.
        MixbitError: as `allocate`.
    """
    exactly = exact_problem(table, {cost: 0}, ties or Ties())
    hull = hull_of(exactly.problem)
    found: list[Supported] = []
    for value, objective, changed in _corners(exactly, hull):
        harm = float(exactly.harm(objective))
        if found and found[-1].harm == harm:
            continue  # only other costs differ
        found.append(Supported(plain(Fraction(value, exactly.cost_units[0])), harm, changed))
    return found


def _corners(exactly: Exact, hull: Hull) -> Iterator[tuple[int, int, dict[str, Entry]]]:
    blocks, taken = exactly.problem.blocks, [0] * len(hull.vertices)

    def entries(place: int) -> dict[str, Entry]:
        chosen = zip(blocks[place].parts, hull.vertices[place][taken[place]].options, strict=True)
        return {name: option.entry for names, option in chosen for name in names}

    first: dict[str, Entry] = {}
    for place in range(len(blocks)):
        first |= entries(place)
    yield hull.costs[0], hull.objectives[0], first
    for step, place in enumerate(hull.blocks.tolist(), start=1):
        before = entries(place)
        taken[place] += 1
        after = entries(place)
        yield hull.costs[step], hull.objectives[step], {n: e for n, e in after.items() if before[n] != e}


def front(
    table: Table, budgets: Sequence[Mapping[str, Number]], ties: Ties | None = None, time_limit_s: float = 60.0
) -> list[Allocation]:
    """An answer for each budget, in their order; each as `policies.ilp.allocate` gives it.

    With one cost every gap is 0. With several, `optimal` is a gap of at most 1e-4. Equal budgets get equal answers,
    whatever their order, unless the time limit cuts in.

    Args:
        table: as `allocate`.
        budgets: each limits the same costs.
        ties: layers that share bits.
        time_limit_s: when to stop with the best policies known, for all budgets together.

    Raises:
        MisuseError: budgets that limit different costs; and as `allocate`.
        MixbitError: as `allocate`.
    """
    deadline = time.monotonic() + time_limit_s
    ties = ties or Ties()
    if not budgets:
        return []
    for budget in budgets:
        if set(budget) != set(budgets[0]):
            raise MisuseError("budgets", "limit different costs", expected=_listed(budgets[0]), got=_listed(budget))
    exactly = exact_problem(table, budgets[0], ties)
    limits = [exactly.floors(budget) for budget in budgets]
    several = {0: _unlimited, 1: _one_cost}.get(len(exactly.names), _several_costs)
    known = dict(several(exactly, table, sorted(set(limits)), deadline))
    found = {}
    for limit, budget in zip(limits, budgets, strict=True):
        if limit not in known:
            known[limit] = allocate(table, budget, ties, max(1.0, deadline - time.monotonic()))
        found[limit] = known[limit]
    return [found[limit] for limit in limits]


def _listed(budget: Mapping[str, Number]) -> str:
    return ", ".join(sorted(budget)) or "nothing"


Limits = tuple[int, ...]
Answers = Iterator[tuple[Limits, Allocation]]


def _unlimited(exactly: Exact, table: Table, limits: Sequence[Limits], deadline: float) -> Answers:  # noqa: ARG001
    """Nothing to share."""
    yield from ()


def _one_cost(exactly: Exact, table: Table, limits: Sequence[Limits], deadline: float) -> Answers:  # noqa: ARG001
    hull = hull_of(exactly.problem)
    if any(points is None for points in hull.points):
        return
    knapsack, least = Knapsack(hull), hull.costs[0]
    smallest = {exactly.names[0]: plain(Fraction(least, exactly.cost_units[0]))}
    for (limit,) in limits:
        if limit < least:
            yield (limit,), Allocation("infeasible", smallest_feasible=smallest)
            continue
        picks, bound = knapsack.best(limit)
        if picks is not None:
            yield (limit,), _answered(exactly, table, (limit,), picks, bound)


def _several_costs(exactly: Exact, table: Table, limits: Sequence[Limits], deadline: float) -> Answers:
    dual, least = Dual(exactly.problem), least_costs(exactly.problem)
    for limit in limits:
        if time.monotonic() > deadline or any(low > most for low, most in zip(least, limit, strict=True)):
            continue
        problem = Problem(exactly.problem.blocks, limit)
        found = _closed(problem, dual.solve(limit), deadline, precise=len(table) <= SMALL)
        if found.picks is not None and _gap(found) <= ALLOWED_GAP:
            yield limit, _answered(exactly, table, limit, found.picks, found.bound)


def _closed(problem: Problem, found: Bounded, deadline: float, *, precise: bool) -> Bounded:
    """The best policy by an exact search of what the bound leaves, where the gap asks for it.

    The search looks no further above the bound than it must: what lies near it leaves few options.
    """
    if found.picks is None or _gap(found) <= (0 if precise else ALLOWED_GAP):
        return found
    upper, low = objective_of(found.picks), found.bound
    reach = max(1, math.floor(low * ALLOWED_GAP * FIRST_REACH), (upper - low) // 64)
    while True:
        aim = min(upper, low + reach)
        best, complete = _searched(problem, found, aim, deadline)
        if best is not None:
            return replace(found, picks=best, bound=objective_of(best))
        if not complete or aim == upper:
            return found
        found = replace(found, bound=aim + 1)
        if not precise and _gap(found) <= ALLOWED_GAP:
            return found
        reach *= 3


def _searched(problem: Problem, found: Bounded, aim: int, deadline: float) -> tuple[Picks | None, bool]:
    """(the best policy of an objective of at most `aim`, or None; whether that is certain)."""
    kept = without_hopeless(problem, found.prices, aim)
    if not all(block.branches for block in kept.blocks):
        return None, True
    kept = without_impossible(kept)
    if not all(block.branches for block in kept.blocks):
        return None, True
    return search(kept, found.prices, aim, deadline, MOST_STATES)


def _gap(found: Bounded) -> Fraction:
    assert found.picks is not None
    upper = objective_of(found.picks)
    return Fraction(upper - found.bound, upper) if upper else Fraction(0)


def _answered(exactly: Exact, table: Table, limit: Limits, picks: Picks, bound: int) -> Allocation:
    asked = replace(exactly, problem=Problem(exactly.problem.blocks, limit))
    return answer(asked, Found(picks, bound), table, precise=len(limit) <= 1)

"""The allocation: one (weight, activation) entry per layer, least total harm within every limit. Numbers only.

The ILP is LIMPQ's (https://arxiv.org/abs/2203.08368), with any number of limits and layers that share bits. PuLP and
HiGHS find a policy; what the solver says of it is not believed: every limit is recomputed in integers, and optimality
is proven by an exact search (policies/exact_search.py) or reported with its gap; with pair terms (policies/pairs.py) by
the solver's own bound. That check, and the pricing that shrinks and scales the problem before the solver sees it, are
our own.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from mixbit.policy import Entry
from policies.bound import (
    Picks,
    Prices,
    cheapest,
    fits,
    least_costs,
    lower_bound,
    objective_of,
    rounded,
    size,
    without_hopeless,
    without_impossible,
)
from policies.exact_search import search
from policies.pairs import HARM, Pair, PairProblem
from policies.solver import mixed_integer, prices_of
from policies.table import Branch, Exact, Number, Option, Problem, Table, Ties, exact, exact_problem, for_cost

Status = Literal["optimal", "feasible", "infeasible", "undecided"]

EXACT_LAYERS = 200
ALLOWED_GAP = Fraction(1, 10_000)
# Beyond 200 layers or one limit the solver may stop here; the exact search then goes on from its policy.
SOLVER_GAP = 1e-5
# How long the exact search may go on; fewer where the solver's small gap is proof enough.
MOST_STATES, FEWER_STATES = 3_000_000, 500_000
# Another round of pricing pays when it left no more than this share of the options.
WORTH_A_ROUND = 0.7


@dataclass(frozen=True)
class Allocation:
    """An answer with its evidence.

    Attributes:
        status: `optimal` is proven: relative gap 0, in integers, up to 200 layers with one limit; at most 1e-4 beyond.
            `feasible` keeps every limit, but its gap is wider. `infeasible` is proven. `undecided`: no policy and no
            proof in time.
        policy: layer -> entry, layers sorted; empty without a policy.
        harm: total harm of the policy.
        costs: total of every cost in the table, exact.
        gap: (harm - lower_bound) / harm, 0 when proven equal.
        lower_bound: no policy within the limits has less harm.
        smallest_feasible: when infeasible, per limit the least value that has a policy with the other limits kept
            (with none kept, when the others alone are infeasible). A limit for which time ran out may be missing.
    """

    status: Status
    policy: dict[str, Entry] = field(default_factory=dict)
    harm: float = 0.0
    costs: dict[str, int | float] = field(default_factory=dict)
    gap: float = 0.0
    lower_bound: float = 0.0
    smallest_feasible: dict[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The best picks known (None: none), a lower bound of the objective, and whether nothing better exists."""

    picks: Picks | None
    bound: int
    infeasible: bool = False


def allocate(
    table: Table,
    limits: Mapping[str, Number],
    ties: Ties | None = None,
    time_limit_s: float = 60.0,
    pairs: Sequence[Pair] = (),
) -> Allocation:
    """Choose an entry per layer.

    Equal inputs give equal answers, whatever the order of the dicts, unless the time limit cuts in. Of policies with
    equal harm the one with lower costs wins, cost by cost in the order of their names (proven when the gap is 0).
    Pairs are solved by the ILP alone: there, any policy of that harm may win, and `optimal` is a gap of at most 1e-4.

    Args:
        table: layer -> (weight_bits, activation_bits) -> (harm, cost name -> cost). Numbers are finite and >= 0; a
            float means the decimal it prints as. Every candidate has the same cost names.
        limits: cost name -> most of it; may be empty (least harm).
        ties: layers that share both bits, weight bits or activation bits.
        time_limit_s: when to stop with the best policy known.
        pairs: costs of neighbours of which exactly one is float; of limited or other costs of the table.

    Raises:
        MisuseError: no layers, a layer without entries, numbers that are not finite and >= 0, a missing cost, a limit
            on an unknown cost, an unknown layer in a tie, ties without a common entry.
        MixbitError: ties so entangled that their assignments can't be listed.
    """
    deadline = time.monotonic() + time_limit_s
    exactly = exact_problem(table, limits, ties or Ties())
    if pairs:
        return _with_pairs(PairProblem(table, ties or Ties(), pairs), limits, deadline)
    precise = len(table) <= EXACT_LAYERS and len(limits) <= 1
    found = _minimise(exactly.problem, deadline, precise=precise)
    if found.picks is not None:
        return answer(exactly, found, table, precise=precise)
    return _infeasible(exactly, deadline) if found.infeasible else Allocation("undecided")


def answer(exactly: Exact, found: Found, table: Table, *, precise: bool) -> Allocation:
    """What was found for `exactly.problem`, in the user's units, its limits checked."""
    assert found.picks is not None
    assert fits(found.picks, exactly.problem)
    objective = objective_of(found.picks)
    harm, bound = exactly.harm(objective), exactly.harm(min(found.bound, objective))
    gap = (harm - bound) / harm if harm else Fraction(0)
    chosen = zip(exactly.problem.blocks, found.picks, strict=True)
    entries = {
        n: o.entry for block, options in chosen for names, o in zip(block.parts, options, strict=True) for n in names
    }
    policy = dict(sorted(entries.items()))
    costs = {name: plain(sum(exact(table[n][e][1][name]) for n, e in policy.items())) for name in _cost_names(table)}
    status: Status = "optimal" if gap <= (0 if precise else ALLOWED_GAP) else "feasible"
    return Allocation(status, policy, float(harm), costs, float(gap), float(bound))


def least_of(
    cost: str,
    table: Table,
    limits: Mapping[str, Number],
    ties: Ties | None = None,
    *,
    time_limit_s: float = 60.0,
    pairs: Sequence[Pair] = (),
) -> Allocation:
    """The policy of the least cost, whatever its harm, within limits on other costs.

    Args:
        cost: its name.
        table: as `allocate`, and so are the others.
        limits: cost name -> most of it, `cost` not among them.
        ties: layers that share bits.
        time_limit_s: when to stop with the best policy known.
        pairs: costs of neighbours.

    Raises:
        MisuseError: as `allocate`.
    """
    exact_problem(table, limits, ties or Ties())
    problem = PairProblem(table, ties or Ties(), pairs)
    return _with_pairs(problem, limits, time.monotonic() + time_limit_s, cost)


def _with_pairs(
    problem: PairProblem, limits: Mapping[str, Number], deadline: float, minimised: str = HARM
) -> Allocation:
    whole = {name: math.floor(exact(limit) * problem.units[name]) for name, limit in sorted(limits.items())}
    found = problem.minimise(minimised, whole, deadline)
    if found.policy is None:
        if not found.infeasible:
            return Allocation("undecided")
        return Allocation("infeasible", smallest_feasible=_least_of_each(problem, whole, deadline))
    assert problem.fits(found.policy, whole)
    totals = {name: Fraction(problem.total(name, found.policy), problem.units[name]) for name in problem.costs}
    total, bound = totals[minimised], Fraction(found.bound, problem.units[minimised])
    gap = (total - bound) / total if total else Fraction(0)
    status: Status = "optimal" if gap <= ALLOWED_GAP else "feasible"
    costs = {name: int(value) if value.denominator == 1 else float(value) for name, value in totals.items()}
    harm = float(costs.pop(HARM))
    policy = dict(sorted(found.policy.items()))
    return Allocation(status, policy, harm, costs, float(gap), float(bound))


def _least_of_each(problem: PairProblem, limits: Mapping[str, int], deadline: float) -> dict[str, int | float]:
    """The least of each limit given the others; given none where the others alone can't be kept."""
    smallest: dict[str, int | float] = {}
    for name in limits:
        others = {other: limit for other, limit in limits.items() if other != name}
        found = problem.minimise(name, others, deadline)
        if found.infeasible:
            found = problem.minimise(name, {}, deadline)
        if found.policy is not None:
            value = Fraction(problem.total(name, found.policy), problem.units[name])
            smallest[name] = int(value) if value.denominator == 1 else float(value)
    return smallest


def _cost_names(table: Table) -> list[str]:
    return sorted(next(iter(next(iter(table.values())).values()))[1])


def plain(value: int | Fraction) -> int | float:
    """As JSON has it."""
    return value if isinstance(value, int) else float(value)


def _infeasible(exactly: Exact, deadline: float) -> Allocation:
    """The least of each limit given the others."""
    problem = exactly.problem
    alone = least_costs(problem)
    smallest: dict[str, int | float] = {}
    for k, name in enumerate(exactly.names):
        found = _minimise(for_cost(problem, k), deadline, precise=True)
        if found.picks is None and not found.infeasible:
            continue
        value = alone[k] if found.picks is None else objective_of(found.picks)
        smallest[name] = plain(Fraction(value, exactly.cost_units[k])) if exactly.cost_units[k] > 1 else value
    return Allocation("infeasible", smallest_feasible=smallest)


def _minimise(problem: Problem, deadline: float, *, precise: bool) -> Found:
    """Least objective within the limits."""
    free = cheapest(problem, Prices(1, (0,) * len(problem.limits)))
    bound = objective_of(free)
    if fits(free, problem):
        return Found(free, bound)
    if any(least > limit for least, limit in zip(least_costs(problem), problem.limits, strict=True)):
        return Found(None, bound, infeasible=True)
    possible = without_impossible(problem)
    if not all(block.branches for block in possible.blocks):
        return Found(None, bound, infeasible=True)
    kept, prices, picks = _shrunk(possible, deadline)
    picks, solved = _better(picks, *mixed_integer(kept, _half(deadline), gap=0.0 if precise else SOLVER_GAP))
    if picks is None:
        return _without_policy(problem, bound, deadline)
    upper = objective_of(picks)
    kept = without_impossible(without_hopeless(kept, prices, upper))
    bound = max(bound, min(upper, -(-lower_bound(kept, prices) // prices.unit)), min(upper, solved))
    best, complete = search(kept, prices, upper, deadline, MOST_STATES if precise else FEWER_STATES)
    if complete:
        assert best is not None
        return Found(_as_in(problem, best), objective_of(best))
    return Found(_as_in(problem, picks), bound)


def _without_policy(problem: Problem, bound: int, deadline: float) -> Found:
    """The solver knows no policy: there is none if the least of one cost, given the other limits, is over its limit."""
    if len(problem.limits) < 2:
        return Found(None, bound)
    least = _minimise(for_cost(problem, 0), deadline, precise=True)
    if least.infeasible or least.bound > problem.limits[0]:
        return Found(None, bound, infeasible=True)
    if least.picks is None or objective_of(least.picks) > problem.limits[0]:
        return Found(None, bound)
    return Found(_as_in(problem, least.picks), bound)


def _shrunk(problem: Problem, deadline: float) -> tuple[Problem, Prices, Picks | None]:
    """(the problem without hopeless options, prices for it, the best policy met on the way).

    Repeated, because one huge harm hides the small ones from the solver until it is gone.
    """
    picks: Picks | None = None
    while True:
        prices = prices_of(problem, deadline)
        met = rounded(problem, prices)
        picks = min((p for p in (picks, met) if p is not None), key=objective_of, default=None)
        if picks is None:
            return problem, prices, None
        smaller = without_impossible(without_hopeless(problem, prices, objective_of(picks)))
        if size(smaller) > WORTH_A_ROUND * size(problem) or time.monotonic() > deadline:
            return smaller, prices, picks
        problem = smaller


def _as_in(problem: Problem, picks: Picks) -> Picks:
    """The same entries as options of `problem`."""
    return tuple(_same_entries(block.branches, options) for block, options in zip(problem.blocks, picks, strict=True))


def _same_entries(branches: tuple[Branch, ...], options: tuple[Option, ...]) -> tuple[Option, ...]:
    for branch in branches:
        found = [
            next((o for o in part if o.entry == option.entry), None)
            for part, option in zip(branch, options, strict=True)
        ]
        if None not in found:
            return tuple(o for o in found if o is not None)
    raise AssertionError("entries of another problem")


def _better(known: Picks | None, solved: Picks | None, bound: int) -> tuple[Picks | None, int]:
    """The better of two policies, and the solver's bound."""
    both = [picks for picks in (known, solved) if picks is not None]
    return min(both, key=objective_of, default=None), bound


def _half(deadline: float) -> float:
    now = time.monotonic()
    return now + (deadline - now) / 2

"""An allocation problem as a PuLP model, solved by HiGHS: scaled on the way in, never believed on the way out."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from policies.bound import Picks, Prices, fits
from policies.table import Block, Option, Problem

# A row's room, so that HiGHS's absolute tolerances are 1e-12 of it.
ROOM = 1000.0
TOLERANCE = 1e-9
# Limits tightened by these shares when the solver's answer breaks them within its tolerances.
TIGHTER = (0.0, 1e-7, 1e-4)
PRICE_BITS = 60
# The solver's bound is a float: this share of the objective's span is left as a margin.
MARGIN = Fraction(1, 10**9)


@dataclass(frozen=True)
class _Scale:
    """Objective and costs as floats: what to subtract per part, what to divide by."""

    low_objective: tuple[tuple[int, ...], ...]
    low_costs: tuple[tuple[tuple[int, ...], ...], ...]
    span: int
    room: tuple[int, ...]


def prices_of(problem: Problem, deadline: float) -> Prices:
    """Multipliers that give about the best bound: the duals of the relaxed problem; zeros when it can't be solved."""
    scale = _scale(problem)
    model, _, rows = _model(problem, scale, "Continuous", 0.0)
    if not run(model, deadline, gap=0.0):
        return Prices(1, (0,) * len(problem.limits))
    wanted = [Fraction(0)] * len(problem.limits)
    for k, row in rows.items():
        wanted[k] = max(Fraction(0), Fraction(-(row.pi or 0.0))) * Fraction(ROOM) * scale.span / scale.room[k]
    small = min((price for price in wanted if price), default=Fraction(1))
    unit = 1 << max(0, PRICE_BITS + math.ceil(1 / small).bit_length() - math.floor(small).bit_length())
    return Prices(unit, tuple(round(price * unit) for price in wanted))


def mixed_integer(problem: Problem, deadline: float, *, gap: float) -> tuple[Picks | None, int]:
    """(a policy within the limits, or None; a lower bound of the objective).

    Args:
        problem: what to solve; every option possible beside the cheapest of everything else.
        deadline: when to stop, in seconds of the monotonic clock.
        gap: relative gap at which the solver may stop.
    """
    scale = _scale(problem)
    floor = sum(map(sum, scale.low_objective))
    bound = floor
    for tighter in TIGHTER:
        model, variables, _ = _model(problem, scale, "Integer", tighter)
        solved = run(model, deadline, gap)
        if tighter == TIGHTER[0]:
            bound = max(bound, floor + _solver_bound(model, scale.span))
        picks = _picked(problem, variables) if solved else None
        if picks is None or fits(picks, problem):
            return picks, bound
    return None, bound


def _solver_bound(model: Any, span: int) -> int:
    value = model.solverModel.getInfo().mip_dual_bound
    return math.floor((Fraction(value) - MARGIN) * span) if math.isfinite(value) else 0


def _scale(problem: Problem) -> _Scale:
    low_objective = tuple(
        tuple(min(o.objective for o in part) for part in _over_branches(block)) for block in problem.blocks
    )
    low_costs = tuple(
        tuple(
            tuple(min(o.costs[k] for o in part) for k in range(len(problem.limits))) for part in _over_branches(block)
        )
        for block in problem.blocks
    )
    span = max(o.objective - low_objective[b][p] for b, p, o in _options(problem))
    room = tuple(
        limit - sum(part[k] for parts in low_costs for part in parts) for k, limit in enumerate(problem.limits)
    )
    return _Scale(low_objective, low_costs, max(1, span), room)


def _over_branches(block: Block) -> list[list[Option]]:
    """Per part, its options in any branch."""
    return [[option for branch in block.branches for option in branch[p]] for p in range(len(block.parts))]


def _options(problem: Problem) -> Iterator[tuple[int, int, Option]]:
    for b, block in enumerate(problem.blocks):
        for branch in block.branches:
            for p, part in enumerate(branch):
                for option in part:
                    yield b, p, option


Variables = list[list[tuple[Any, list[list[Any]]]]]


def _model(problem: Problem, scale: _Scale, kind: str, tighter: float) -> tuple[Any, Variables, dict[int, Any]]:
    """(the model; per block and branch its switch and the options' variables; limit -> row)."""
    import pulp

    model = pulp.LpProblem("allocation", pulp.LpMinimize)
    objective: list[tuple[Any, float]] = []
    rows: list[list[tuple[Any, float]]] = [[] for _ in problem.limits]
    variables: Variables = []
    for b, block in enumerate(problem.blocks):
        variables.append([])
        for r, branch in enumerate(block.branches):
            switch = model.add_variable(f"y{b}_{r}", 0, 1, cat="Continuous")
            parts: list[list[Any]] = []
            for p, part in enumerate(branch):
                parts.append([model.add_variable(f"x{b}_{r}_{p}_{i}", 0, 1, cat=kind) for i in range(len(part))])
                model += pulp.LpAffineExpression([*((x, 1.0) for x in parts[p]), (switch, -1.0)]) == 0
                for x, option in zip(parts[p], part, strict=True):
                    objective.append((x, (option.objective - scale.low_objective[b][p]) / scale.span))
                    for k, row in enumerate(rows):
                        over = option.costs[k] - scale.low_costs[b][p][k]
                        if over:
                            row.append((x, over / scale.room[k] * ROOM))
            variables[b].append((switch, parts))
        model += pulp.LpAffineExpression([(switch, 1.0) for switch, _ in variables[b]]) == 1
    model.setObjective(pulp.LpAffineExpression(objective))
    return model, variables, _limited(model, rows, tighter)


def _limited(model: Any, rows: list[list[tuple[Any, float]]], tighter: float) -> dict[int, Any]:
    import pulp

    limited = {}
    for k, row in enumerate(rows):
        if row:
            limited[k] = pulp.LpAffineExpression(row) <= ROOM * (1 - tighter)
            model += limited[k]
    return limited


def run(model: Any, deadline: float, gap: float) -> bool:
    """Whether the solver holds an answer; its `status` says so even when it holds none, so `sol_status` is read."""
    import pulp

    seconds = max(0.01, deadline - time.monotonic())
    tolerances = ("primal_feasibility_tolerance", "dual_feasibility_tolerance", "mip_feasibility_tolerance")
    options = dict.fromkeys(tolerances, TOLERANCE) | {"gapRel": gap, "gapAbs": 0.0, "timeLimit": seconds}
    model.solve(pulp.HiGHS(msg=False, threads=1, random_seed=0, **options))
    return model.sol_status in {pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible}


def _picked(problem: Problem, variables: Variables) -> Picks | None:
    """The options whose variables are nearer to 1; None unless that is exactly one per part."""
    picks = []
    for block, branches in zip(problem.blocks, variables, strict=True):
        taken = None
        for branch, (_, parts) in zip(block.branches, branches, strict=True):
            on = [
                [o for o, x in zip(part, xs, strict=True) if (x.varValue or 0.0) > 0.5]
                for part, xs in zip(branch, parts, strict=True)
            ]
            if all(len(options) == 1 for options in on):
                taken = tuple(options[0] for options in on)
        if taken is None:
            return None
        picks.append(taken)
    return tuple(picks)

"""The bound of several limits: never above what is possible, and near it."""

import pytest
from hypothesis import example, given, settings

from policies.bound import fits, least_costs
from policies.dual import Dual
from policies.ilp import allocate
from policies.table import Problem, Ties, exact_problem
from tests.policies.allocation_cases import brute_force, problems, random_table

FREE = dict.fromkeys(("bitops", "size_bits", "x"), 0)
# What is left to choose is 1e300 times less than what any policy has.
NEXT_TO_NOTHING = (
    {
        "l0": {(2, 2): (5.618261120012058e-10, FREE), (4, 4): (3.016813266531651e-10, FREE)},
        "l1": {(2, 2): (1.1125369292536007e-308, FREE), (4, 4): (0.0, FREE)},
        "l2": {(2, 2): (0.0, FREE), (4, 4): (0.0, FREE)},
    },
    {"bitops": 0, "size_bits": 0},
    Ties(both=[], weight=[], activation=[]),
)


@given(problems())
@example(NEXT_TO_NOTHING)
@settings(max_examples=100, deadline=None)
def test_the_bound_is_never_above_the_best_policy(problem):
    table, limits, ties = problem
    best = brute_force(*problem)
    if len(limits) < 2 or not isinstance(best, tuple):
        return
    exactly = exact_problem(table, limits, ties)
    found = Dual(exactly.problem).solve(exactly.problem.limits)
    assert exactly.harm(found.bound) <= best[0]
    assert found.picks is None or fits(found.picks, exactly.problem)


@pytest.mark.parametrize("tenths", [6, 8, 10])
def test_of_100_layers_bound_and_policy_enclose_the_best_within_one_percent(tenths):
    table = random_table(100, seed=tenths)
    limits = {k: sum(row[4, 4][1][k] for row in table.values()) * tenths // 10 for k in ("bitops", "size_bits")}
    exactly, best = exact_problem(table, limits, Ties()), allocate(table, limits)
    found = Dual(exactly.problem).solve(exactly.problem.limits)
    harm = float(exactly.harm(sum(o.objective for options in found.picks for o in options)))
    bound = float(exactly.harm(found.bound))
    assert bound <= best.harm <= harm * (1 + 1e-12)
    assert harm - bound < 0.01 * harm


def test_one_dual_serves_all_limits_in_any_order():
    table = random_table(40, seed=1)
    exactly = exact_problem(table, {"bitops": 0, "size_bits": 0}, Ties())
    low = least_costs(exactly.problem)
    shared = Dual(exactly.problem)
    for times in (5, 2, 9, 3):
        limits = tuple(value * times // 2 for value in low)
        found = shared.solve(limits)
        assert fits(found.picks, Problem(exactly.problem.blocks, limits))
        alone = Dual(exactly.problem).solve(limits)
        assert abs(found.bound - alone.bound) < 2e-5 * alone.bound

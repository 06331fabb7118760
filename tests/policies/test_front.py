"""Many budgets in one call: the answers are those of one budget at a time."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbit.errors import MisuseError
from policies import front as many
from policies import hull, knapsack
from policies.front import front, supported
from policies.ilp import allocate
from policies.table import Ties
from tests.policies.allocation_cases import HAND, brute_force, every_policy, problems, random_table, uniform_bitops


@given(problems(), st.data())
@settings(max_examples=150, deadline=None)
def test_answers_equal_brute_force_with_any_number_of_limits_and_groups(problem, data):
    table, limits, ties = problem
    rows = [*table.values()]
    budgets = [limits] + [
        {k: sum(data.draw(st.sampled_from([*row.values()]))[1][k] for row in rows) for k in limits} for _ in range(3)
    ]
    for budget, found in zip(budgets, front(table, budgets, ties), strict=True):
        expected = brute_force(table, budget, ties)
        if isinstance(expected, dict):
            assert found.status == "infeasible"
            assert found.smallest_feasible == {k: pytest.approx(float(v), rel=1e-15) for k, v in expected.items()}
        else:
            assert (found.status, found.harm, found.gap) == ("optimal", float(expected[0]), 0.0)
            assert found.costs == {k: float(v) for k, v in expected[1].items()}


def test_the_hand_solved_table_has_its_policy_at_every_budget():
    wanted = {12: (2, 2), 23: (2, 2), 24: (4, 2), 36: (2, 4), 48: (4, 4), 95: (4, 4), 96: (8, 4), 10**9: (8, 8)}
    found = front(HAND, [{"bitops": bitops} for bitops in wanted])
    assert [tuple(bits for bits, _ in one.policy.values()) for one in found] == [*wanted.values()]


def test_supported_policies_of_the_hand_solved_table_are_the_corners_of_its_hull():
    # Steps by harm per bitops: b to 4 bits 6/24, a to 4 bits 5/12, a to 8 bits 3/48, b to 8 bits 0.5/96.
    assert [(one.cost, one.harm) for one in supported(HAND, "bitops")] == [
        (12, 16.0),
        (24, 11.0),
        (48, 5.0),
        (96, 2.0),
        (192, 1.5),
    ]


@given(problems())
@settings(max_examples=60, deadline=None)
def test_supported_policies_are_all_corners_and_nothing_lies_below_them(problem):
    table, _, ties = problem
    cost = min(next(iter(next(iter(table.values())).values()))[1])
    every = [(float(costs[cost]), float(harm)) for harm, costs in every_policy(table, ties)]
    found = [(one.cost, one.harm) for one in supported(table, cost, ties)]
    assert found[0][0] == min(c for c, _ in every)
    assert found[-1][1] == min(h for _, h in every)
    for (c0, h0), (c1, h1) in itertools.pairwise(found):
        assert all((h - h0) * (c1 - c0) - (h1 - h0) * (c - c0) >= -1e-9 * (c1 - c0) * h0 for c, h in every)


def test_a_supported_policy_is_the_one_before_with_its_changes():
    table, policy = random_table(9, seed=1), {}
    for one in supported(table, "bitops", Ties(both=[["l001", "l005"]], activation=[["l002", "l003"]])):
        policy |= one.changed
        assert sum(table[n][e][1]["bitops"] for n, e in policy.items()) == one.cost
        assert sum(table[n][e][0] for n, e in policy.items()) == pytest.approx(one.harm)
        assert policy["l001"] == policy["l005"]
        assert policy["l002"][1] == policy["l003"][1]


def test_too_many_sums_of_tied_layers_leave_the_hull_as_it_is(monkeypatch):
    table, ties = random_table(9, seed=2), Ties(activation=[[f"l00{i}" for i in range(5)]])
    wanted = supported(table, "bitops", ties), front(table, [{"bitops": uniform_bitops(table, 3)}], ties)[0].harm
    monkeypatch.setattr(hull, "MOST_POINTS", 10)
    found = supported(table, "bitops", ties), front(table, [{"bitops": uniform_bitops(table, 3)}], ties)[0].harm
    assert found == wanted


def test_a_budget_that_takes_too_many_states_is_solved_by_itself(monkeypatch):
    table = random_table(20, seed=3)
    limit = {"bitops": uniform_bitops(table, 3)}
    monkeypatch.setattr(knapsack, "MOST_STATES", 5)
    assert front(table, [limit]) == [allocate(table, limit)]


@pytest.mark.parametrize("names", [["bitops"], ["bitops", "size_bits"]])
def test_a_front_of_60_layers_equals_one_budget_at_a_time(names):
    table = random_table(60, seed=4)
    budgets = [
        {k: sum(row[4, 4][1][k] for row in table.values()) * tenths // 10 for k in names} for tenths in (6, 8, 11)
    ]
    for one, alone in zip(front(table, budgets), (allocate(table, budget) for budget in budgets), strict=True):
        assert (one.status, one.harm) == ("optimal", pytest.approx(alone.harm, rel=1e-4 if len(names) > 1 else 1e-15))


def test_300_layers_with_three_limits_have_a_proven_gap_of_1e_4():
    table = random_table(300, seed=5)
    for row in table.values():
        for (w, _), (_, costs) in row.items():
            costs["latency"] = costs["bitops"] // 7 + 1000 * w
    names = ("bitops", "size_bits", "latency")
    budget = {k: sum(row[4, 4][1][k] for row in table.values()) * 9 // 10 for k in names}
    found = front(table, [budget])[0]
    assert (found.status, found.gap <= 1e-4) == ("optimal", True)
    assert all(found.costs[name] <= limit for name, limit in budget.items())
    assert found.lower_bound <= found.harm


def test_the_order_of_budgets_decides_nothing():
    table = random_table(25, seed=6)
    budgets = [{"bitops": b, "size_bits": 30 * b // 100} for b in (10**6, 2 * 10**6, 15 * 10**5)]
    assert front(table, budgets[::-1]) == front(table, budgets)[::-1]


def test_what_dominates_nothing_and_is_dominated_never_reaches_the_answer(monkeypatch):
    seen = []
    monkeypatch.setattr(many, "hull_of", lambda problem: seen.append(problem) or hull.hull_of(problem))
    front({"a": {(2, 2): (1, {"c": 1}), (4, 4): (1, {"c": 2}), (8, 8): (0, {"c": 9})}}, [{"c": 9}])
    assert [option.entry for option in seen[0].blocks[0].branches[0][0]] == [(8, 8), (2, 2)]


def test_budgets_of_different_costs_are_refused():
    table = random_table(2, seed=7)
    with pytest.raises(MisuseError, match="limit different costs, expected bitops, got size_bits"):
        front(table, [{"bitops": 1}, {"size_bits": 1}])


def test_no_budgets_have_no_answers():
    assert front(HAND, []) == []


def test_numbers_beyond_floats_are_solved_all_the_same():
    table = {n: {(2, 2): (3e299, {"c": 1}), (4, 4): (1e-300, {"c": 1e299})} for n in "ab"}
    assert [one.harm for one in front(table, [{"c": 2}, {"c": 1.5e299}, {"c": 1e300}])] == [6e299, 3e299, 2e-300]

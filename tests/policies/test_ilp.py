import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbit.errors import MisuseError, MixbitError
from policies import ilp
from policies.ilp import allocate
from policies.table import Ties
from tests.policies.allocation_cases import HAND, brute_force, problems, random_table, uniform_bitops


@given(problems())
@settings(max_examples=150, deadline=None)
def test_answers_equal_brute_force_with_several_limits_and_groups(problem):
    found, expected = allocate(*problem), brute_force(*problem)
    if isinstance(expected, dict):
        assert found.status == "infeasible"
        assert found.smallest_feasible == {k: pytest.approx(float(v), rel=1e-15) for k, v in expected.items()}
    else:
        assert (found.status, found.harm, found.gap) == ("optimal", float(expected[0]), 0.0)
        assert found.costs == {k: float(v) for k, v in expected[1].items()}


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_dicts_decides_nothing(problem, rng):
    table, limits, ties = problem
    shuffled = {name: dict(rng.sample(list(row.items()), len(row))) for name, row in reversed(table.items())}
    assert allocate(shuffled, dict(reversed(limits.items())), ties) == allocate(table, limits, ties)


@pytest.mark.parametrize(
    ("bitops", "bits"),
    [
        *[
            (12, (2, 2)),
            (23, (2, 2)),
            (24, (4, 2)),
            (35, (4, 2)),
            (36, (2, 4)),
            (47, (2, 4)),
            (48, (4, 4)),
            (95, (4, 4)),
        ],
        *[(96, (8, 4)), (191, (8, 4)), (192, (8, 8)), (10**9, (8, 8))],
    ],
)
def test_the_policy_flips_exactly_where_a_better_one_fits(bitops, bits):
    found = allocate(HAND, {"bitops": bitops})
    assert found.policy == {"a": (bits[0],) * 2, "b": (bits[1],) * 2}


def test_one_below_the_minimum_is_infeasible_and_says_the_minimum():
    found = allocate(HAND, {"bitops": 11})
    assert (found.status, found.policy, found.smallest_feasible) == ("infeasible", {}, {"bitops": 12})


def test_without_limits_every_layer_takes_its_least_harm():
    assert allocate(HAND, {}).policy == {"a": (8, 8), "b": (8, 8)}


def test_one_candidate_is_taken_everywhere():
    table = {name: {(4, 4): row[4, 4]} for name, row in HAND.items()}
    assert allocate(table, {"bitops": 48}).policy == {"a": (4, 4), "b": (4, 4)}


def test_equal_layers_at_the_uniform_cost_get_the_uniform_policy():
    row = {(b, b): (4.0**-b, {"bitops": b * b}) for b in (2, 3, 4, 5, 6)}
    found = allocate({f"l{i}": row for i in range(30)}, {"bitops": 30 * 16})
    assert set(found.policy.values()) == {(4, 4)}
    assert found.gap == 0


def test_tightening_a_budget_never_lowers_harm():
    table = random_table(12, seed=3)
    harms = [allocate(table, {"bitops": bitops}).harm for bitops in range(2_000_000, 300_000, -150_000)]
    assert harms == sorted(harms)


@pytest.mark.parametrize("factor", [1e-12, 1e-9, 1e-3, 1e6])
def test_scaling_every_harm_leaves_the_policy(factor):
    table = random_table(20, seed=4)
    scaled = {n: {e: (harm * factor, costs) for e, (harm, costs) in row.items()} for n, row in table.items()}
    limits = {"bitops": uniform_bitops(table, 4)}
    assert allocate(scaled, limits).policy == allocate(table, limits).policy


def test_a_huge_alpha_favours_weight_bits():
    def table(alpha):
        return {
            f"l{i}": {(w, a): (alpha / w + 1 / a, {"bitops": w * a}) for w in (2, 4, 8) for a in (2, 4, 8)}
            for i in "ab"
        }

    assert set(allocate(table(1e6), {"bitops": 32}).policy.values()) == {(8, 2)}
    assert set(allocate(table(1e-6), {"bitops": 32}).policy.values()) == {(2, 8)}


def test_one_forbidding_harm_does_not_drown_the_small_ones():
    rng = random.Random(0)
    table = {
        f"l{i}": {
            (b, b): (1e8 if b == 2 and i % 2 else rng.random() * 1e-9, {"bitops": rng.randint(1, 9)}) for b in (2, 3, 4)
        }
        for i in range(7)
    }
    assert allocate(table, {"bitops": 30}).harm == float(brute_force(table, {"bitops": 30}, Ties())[0])


def test_a_float_means_the_decimal_that_was_written():
    table = {"a": {(2, 2): (1, {"c": 0.1})}, "b": {(2, 2): (1, {"c": 0.2})}}
    assert allocate(table, {"c": 0.3}).status == "optimal"


def test_of_equal_harm_the_cheaper_policy_wins():
    table = {"a": {(8, 8): (1, {"c": 5, "d": 1}), (4, 4): (1, {"c": 4, "d": 9}), (2, 2): (1, {"c": 4, "d": 2})}}
    assert allocate(table, {"d": 100}).policy == {"a": (2, 2)}


def test_a_group_takes_one_entry_and_shared_activations_only_agree_on_those():
    table = {name: {(w, a): (1 / w + 1 / a, {"c": w * a}) for w in (2, 4) for a in (2, 4)} for name in "abcd"}
    found = allocate(table, {"c": 44}, Ties(both=[["a", "b"]], activation=[["c", "d"]])).policy
    assert found["a"] == found["b"]
    assert found["c"][1] == found["d"][1]


@pytest.mark.parametrize("two", [False, True])
def test_200_layers_are_proven_optimal(two):
    table = random_table(200, seed=5)
    limits = {"bitops": uniform_bitops(table, 4) * 9 // 10}
    if two:
        limits["size_bits"] = sum(row[4, 4][1]["size_bits"] for row in table.values()) * 9 // 10
    found = allocate(table, limits)
    assert found.status == "optimal"
    assert found.gap <= (1e-4 if two else 0)
    assert all(found.costs[name] <= limit for name, limit in limits.items())


def test_the_lower_bound_never_exceeds_the_harm():
    found = allocate(random_table(40, seed=6), {"bitops": 3_000_000})
    assert found.lower_bound <= found.harm


def subset_sum(layers):
    """Every partial sum differs and none hits the odd limit: as hard as a knapsack gets."""
    rng = random.Random(1)
    costs = [2 * rng.randint(10**11, 10**12) for _ in range(layers)]
    table = {f"l{i:02}": {(2, 2): (c, {"bitops": 0}), (4, 4): (0, {"bitops": c})} for i, c in enumerate(costs)}
    return table, {"bitops": sum(costs) // 2 | 1}


def test_a_knapsack_that_can_not_be_proven_in_time_is_feasible_with_its_gap():
    found = allocate(*subset_sum(60), time_limit_s=1)
    assert found.status == "feasible"
    assert 0 < found.gap < 1e-3


def test_a_search_that_runs_out_of_states_claims_nothing(monkeypatch):
    monkeypatch.setattr(ilp, "MOST_STATES", 10)
    table = random_table(30, seed=7)
    assert allocate(table, {"bitops": uniform_bitops(table, 3)}).status in {"feasible", "optimal"}
    assert allocate(*subset_sum(30), time_limit_s=1).status == "feasible"


def test_nothing_is_printed(capfd):
    allocate(random_table(30, seed=8), {"bitops": 900_000})
    assert capfd.readouterr() == ("", "")


def test_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    allocate(random_table(30, seed=8), {"bitops": 900_000})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_numbers_that_are_none_are_refused_with_their_place(value):
    with pytest.raises(MisuseError, match="a: weight_bits 2, activation_bits 2: harm: expected a finite number"):
        allocate({"a": {(2, 2): (value, {"c": 1})}}, {"c": 1})
    with pytest.raises(MisuseError, match="budget c: expected a finite number"):
        allocate({"a": {(2, 2): (1, {"c": 1})}}, {"c": value})


def test_a_missing_cost_an_unknown_budget_and_an_empty_layer_are_refused():
    with pytest.raises(MisuseError, match="costs differ"):
        allocate({"a": {(2, 2): (1, {"c": 1})}, "b": {(2, 2): (1, {})}}, {})
    with pytest.raises(MisuseError, match="unknown cost, expected bitops"):
        allocate(HAND, {"bitop": 1})
    with pytest.raises(MisuseError, match="a: no entries"):
        allocate({"a": {}}, {})


def test_ties_without_a_common_entry_or_with_an_unknown_layer_are_refused():
    table = {"a": {(2, 2): (1, {"c": 1})}, "b": {(4, 4): (1, {"c": 1})}}
    with pytest.raises(MisuseError, match="group a, b: no entry"):
        allocate(table, {}, Ties(both=[["a", "b"]]))
    with pytest.raises(MisuseError, match="group a, b: no bits"):
        allocate(table, {}, Ties(activation=[["a", "b"]]))
    with pytest.raises(MisuseError, match=r"unknown layer, got bb\. Did you mean b"):
        allocate(table, {}, Ties(weight=[["a", "bb"]]))


def test_ties_too_entangled_to_list_are_refused():
    table = {f"l{i:02}": {(w, a): (w, {"c": a}) for w in (2, 4) for a in (2, 4)} for i in range(40)}
    names = list(table)
    ties = Ties(
        weight=[names[i : i + 2] for i in range(0, 40, 2)], activation=[names[i : i + 2] for i in range(1, 39, 2)]
    )
    with pytest.raises(MixbitError, match="too entangled"):
        allocate(table, {"c": 100}, ties)

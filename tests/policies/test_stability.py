"""Over which budgets a policy stays best, and how far tables agree."""

import pytest
from hypothesis import given, settings

from mixbit.errors import MisuseError
from policies.ilp import allocate
from policies.stability import agreement, flipped, rank_correlation, stays_optimal
from tests.policies.allocation_cases import HAND, brute_force, every_policy, exact, problems, random_table


@pytest.mark.parametrize(
    ("bitops", "least", "below"), [(12, 12, 24), (30, 24, 36), (40, 36, 48), (95, 48, 96), (10**6, 192, None)]
)
def test_the_hand_solved_table_flips_at_the_ends_of_each_range(bitops, least, below):
    limits = {"bitops": bitops}
    found = stays_optimal(HAND, limits, allocate(HAND, limits).policy)["bitops"]
    assert (found.least, found.below) == (least, below)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_ranges_equal_brute_force_with_the_other_limits_kept(problem):
    table, limits, ties = problem
    if not isinstance(brute_force(*problem), tuple):
        return
    found = allocate(*problem)
    less = [costs for harm, costs in every_policy(table, ties) if float(harm) < found.harm]
    for cost, told in stays_optimal(table, limits, found.policy, ties).items():
        fitting = [c[cost] for c in less if all(c[k] <= exact(v) for k, v in limits.items() if k != cost)]
        assert told.least == found.costs[cost]
        assert told.below == pytest.approx(float(min(fitting)), rel=1e-4) if fitting else told.below is None


def test_just_below_the_end_of_its_range_a_policy_is_best_and_there_no_longer():
    table, limits = random_table(12, seed=9), {"bitops": 900_000}
    found = allocate(table, limits)
    below = stays_optimal(table, limits, found.policy)["bitops"].below
    assert allocate(table, {"bitops": below - 1}).harm == found.harm
    assert allocate(table, {"bitops": below}).harm < found.harm


def test_flips_are_counted_per_pair_of_tables():
    row = {(b, b): (1.0 / b, {"c": b}) for b in (2, 4)}
    dear = {(b, b): (9.0 / b, {"c": b}) for b in (2, 4)}
    tables = {"s0": {"a": dear, "b": row}, "s1": {"a": row, "b": dear}, "s2": {"a": dear, "b": row}}
    found = agreement(tables, {"c": 6})
    assert found.flips == {("s0", "s1"): 2, ("s0", "s2"): 0, ("s1", "s2"): 2}
    assert (found.mean_flips, found.most_flips) == (pytest.approx(4 / 3), 2)
    assert found.correlations["s0", "s2"] == pytest.approx(1)


def test_equal_tables_agree_in_everything():
    table = random_table(8, seed=1)
    found = agreement({"a": table, "b": table}, {"bitops": 700_000})
    assert (found.mean_flips, found.most_flips, found.correlations["a", "b"]) == (0.0, 0, pytest.approx(1.0))


def test_the_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, spreads 4.5 and 5.
    assert rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 1], [1, 2]) is None


def test_a_flip_is_a_layer_with_other_bits():
    assert flipped({"a": (2, 4), "b": (4, 4)}, {"a": (4, 2), "b": (4, 4)}) == 1


def test_tables_of_other_layers_and_limits_that_nothing_fits_are_refused():
    table = random_table(2, seed=1)
    with pytest.raises(MisuseError, match="b: l002: has other entries than in a"):
        agreement({"a": table, "b": random_table(3, seed=1)}, {"bitops": 1e9})
    with pytest.raises(MisuseError, match="a: infeasible: no policy to compare"):
        agreement({"a": table}, {"bitops": 1})

"""Allocation with pair terms, against hand and brute force."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbit.policy import FLOAT_ENTRY
from policies.ilp import allocate, least_of
from policies.pairs import Pair
from policies.table import Ties

US = "latency[local]"
F, W8, W4 = FLOAT_ENTRY, (8, 8), (4, 4)

# Float costs 10 a layer and no harm, int8 costs 2; a change of precision costs 5, on the way back 7.
CHAIN = {name: {F: (0, {US: 10}), W8: (1, {US: 2}), W4: (3, {US: 2})} for name in ("a", "b", "c")}
PAIRS = [Pair(US, ("a", "b"), 5, 7), Pair(US, ("b", "c"), 5, 7)]


def _total(policy, table, pairs, cost):
    single = sum(Fraction(repr(table[name][entry][1][cost])) for name, entry in policy.items())
    return single + sum(Fraction(repr(p.of(policy[p.layers[0]], policy[p.layers[1]]))) for p in pairs)


def _every_policy(table, ties=()):
    for entries in itertools.product(*table.values()):
        policy = dict(zip(table, entries, strict=True))
        if all(len({policy[name][1] for name in group}) == 1 for group in ties):
            yield policy


def test_one_float_layer_goes_where_it_changes_precision_once_and_cheaply():
    found = allocate(CHAIN, {US: 19}, pairs=PAIRS)  # 10 + 5 + 2 + 2: float first, then int8
    assert found.policy == {"a": F, "b": W8, "c": W8}
    assert (found.status, found.harm, found.costs[US]) == ("optimal", 2.0, 19)


def test_without_pairs_two_layers_would_stay_float():
    assert allocate(CHAIN, {US: 22}).harm == 1.0
    assert allocate(CHAIN, {US: 22}, pairs=PAIRS).harm == 2.0


def test_the_direction_of_a_change_counts():
    assert allocate(CHAIN, {US: 20}, pairs=[Pair(US, ("a", "b"), 9, 6)]).policy["c"] == F
    back = [Pair(US, ("a", "b"), 9, 1), Pair(US, ("b", "c"), 9, 6)]
    assert allocate(CHAIN, {US: 21}, pairs=[*back, Pair(US, ("a", "c"), 9, 9)]).harm == 3.0


def test_an_unreachable_limit_tells_the_least_that_can_be_had():
    found = allocate(CHAIN, {US: 5}, pairs=PAIRS)
    assert (found.status, found.policy, found.smallest_feasible) == ("infeasible", {}, {US: 6})


def test_the_fastest_policy_need_not_be_all_int8():
    slow = CHAIN | {"b": {F: (0, {US: 1}), W8: (1, {US: 20})}}
    assert least_of(US, slow, {}, pairs=PAIRS).costs[US] == 17  # 2 + 7 + 1 + 5 + 2; all int8 24, all float 21


@st.composite
def problems(draw):
    names = [f"l{i}" for i in range(draw(st.integers(2, 4)))]
    cost = draw(st.sampled_from([st.integers(0, 9), st.sampled_from([0.1, 0.25, 1.5]), st.integers(0, 10**9)]))
    harm = draw(st.sampled_from([st.integers(0, 4), st.sampled_from([1e8, 1e-6, 0.5, 0.0])]))
    table = {n: {e: (draw(harm), {US: draw(cost), "bitops": draw(cost)}) for e in (F, W8, W4)} for n in names}
    neighbours = draw(st.lists(st.sampled_from(list(itertools.permutations(names, 2))), unique=True, max_size=4))
    pairs = [Pair(US, pair, draw(cost), draw(cost)) for pair in neighbours] or [Pair(US, tuple(names[:2]), 1, 1)]
    ties = draw(st.lists(st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True), max_size=1))
    some = draw(st.sampled_from(list(_every_policy(table, ties))))
    limits = {US: float(_total(some, table, pairs, US))}
    if draw(st.booleans()):
        limits["bitops"] = float(_total(some, table, [], "bitops"))
    return table, limits, pairs, ties


@given(problems())
@settings(max_examples=60, deadline=None)
def test_answers_equal_brute_force(problem):
    table, limits, pairs, ties = problem
    within = [
        policy
        for policy in _every_policy(table, ties)
        if all(
            _total(policy, table, pairs if cost == US else [], cost) <= Fraction(repr(limit))
            for cost, limit in limits.items()
        )
    ]
    found = allocate(table, limits, Ties(activation=ties), pairs=pairs)
    if not within:
        assert found.status == "infeasible"
        return
    assert found.status == "optimal"
    assert found.policy in within
    least = min(float(sum(table[name][entry][0] for name, entry in policy.items())) for policy in within)
    assert found.harm == pytest.approx(least, rel=1e-4)


def test_fifty_layers_with_all_entries_take_seconds():
    bits = [2, 3, 4, 5, 6, 7, 8]
    table = {
        f"l{i:02}": {F: (0.0, {US: 100 + 7 * (i % 9)})}
        | {(w, a): (1 / w**2 + 1 / a**2 + (i % 5) / w, {US: 20 + i % 3}) for w in bits for a in bits}
        for i in range(50)
    }
    names = list(table)
    pairs = [Pair(US, pair, 9 + i % 4, 11) for i, pair in enumerate(itertools.pairwise(names))]
    found = allocate(table, {US: 3000}, pairs=pairs, time_limit_s=30)
    assert found.status == "optimal"
    assert found.costs[US] <= 3000

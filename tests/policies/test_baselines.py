"""Every file of policies/baselines, and the two that solve."""

import random
from itertools import product

import pytest

from mixbit.costs import layer_costs, policy_costs
from mixbit.errors import MixbitError
from mixbit.load import load_method, method_names
from policies.baselines import greedy
from policies.baselines import random as random_policy
from policies.baselines import reversed as reversed_policy
from policies.baselines.statistics_init_only import choose
from policies.ilp import allocate
from policies.search import Search
from policies.table import Ties

BITS = (2, 3, 4, 6)
NET = {
    "layers": [
        {"name": name, "macs": macs, "weights": macs // 10, "out_channels": 4, "never_run": False}
        for name, macs in (("a", 1000), ("b", 3000), ("c", 2000))
    ],
    "shared_activations": [["a", "b"]],
    "first": "a",
    "last": "c",
}
COMPARED = {"a": (4, 3), "b": (3, 3), "c": (3, 4)}


def search(**more):
    rng = random.Random(0)
    rows = {layer["name"]: {e: rng.random() / (e[0] * e[1]) for e in product(BITS, BITS)} for layer in NET["layers"]}
    table = {
        layer["name"]: {
            entry: (harm, layer_costs(layer, entry, first=layer["name"] == NET["first"]))
            for entry, harm in rows[layer["name"]].items()
        }
        for layer in NET["layers"]
    }
    return Search(BITS, "none", {}, table=table, ties=Ties(activation=[["a", "b"]]), **more)


def by_hand(table, fits):
    """Every policy that fits: (harm, policy)."""
    for entries in product(*(table[name] for name in table)):
        policy = dict(zip(table, entries, strict=True))
        if policy["a"][1] == policy["b"][1] and fits(policy_costs(policy, NET)):
            yield sum(table[name][entry][0] for name, entry in policy.items()), policy


@pytest.mark.parametrize("name", method_names("policies.baselines"))
def test_a_baseline_keeps_its_folders_contract(name):
    module = load_method("policies.baselines", name)
    assert module.HARM in {None, "layers", "initial"}
    given = search(limits=policy_costs(COMPARED, NET))
    assert set(module.choose(COMPARED, NET, given)) == set(COMPARED)


def test_the_reversed_policy_has_the_most_harm_at_98_to_100_percent_of_the_bitops():
    given, spent = search(), policy_costs(COMPARED, NET)["bitops"]
    found = reversed_policy.choose(COMPARED, NET, given)
    worst, _ = max(by_hand(given.table, lambda costs: 0.98 * spent <= costs["bitops"] <= spent), key=lambda one: one[0])
    assert sum(given.table[name][entry][0] for name, entry in found.items()) == pytest.approx(worst, rel=2e-4)
    assert 0.98 * spent <= policy_costs(found, NET)["bitops"] <= spent


def test_the_reversed_policy_keeps_the_other_limits():
    costs = policy_costs(COMPARED, NET)
    found = reversed_policy.choose(COMPARED, NET, search(limits={"size_bits": costs["size_bits"]}))
    assert policy_costs(found, NET)["size_bits"] <= costs["size_bits"]


def test_the_untrained_search_has_the_least_harm_within_the_same_limits():
    limits = {"bitops": policy_costs(COMPARED, NET)["bitops"]}
    given = search(limits=limits)
    _, policy = min(by_hand(given.table, lambda costs: costs["bitops"] <= limits["bitops"]), key=lambda one: one[0])
    assert choose(COMPARED, NET, given) == policy


def test_the_random_policy_spends_98_to_100_percent_and_keeps_limits_and_ties():
    spent = policy_costs(COMPARED, NET)
    for size_bits in (spent["size_bits"], spent["size_bits"] + 300):
        found = random_policy.choose(COMPARED, NET, search(limits={"bitops": 10**9, "size_bits": size_bits}))
        costs = policy_costs(found, NET)
        assert 0.98 * spent["bitops"] <= costs["bitops"] <= spent["bitops"]
        assert costs["size_bits"] <= size_bits
        assert found["a"][1] == found["b"][1]


def test_the_random_policy_is_another_one_and_the_same_every_time():
    given = search()
    assert random_policy.choose(COMPARED, NET, given) == random_policy.choose(COMPARED, NET, given) != COMPARED


def test_other_seeds_reach_most_policies_of_equal_cost_of_a_small_net_and_no_other(monkeypatch):
    given, spent = search(), policy_costs(COMPARED, NET)["bitops"]
    window = {str(p) for _, p in by_hand(given.table, lambda costs: 0.98 * spent <= costs["bitops"] <= spent)}
    monkeypatch.setattr(random_policy, "STEPS", 40)
    found = set()
    for seed in range(2 * len(window)):
        monkeypatch.setattr(random_policy, "SEED", seed)
        found.add(str(dict(sorted(random_policy.choose(COMPARED, NET, given).items()))))
    assert found <= window
    assert len(found) > len(window) // 2 > 3


def test_the_random_policy_of_one_that_exceeds_a_limit_exceeds_it_no_further():
    spent = policy_costs(COMPARED, NET)
    found = random_policy.choose(COMPARED, NET, search(limits={"size_bits": spent["size_bits"] - 100}))
    assert policy_costs(found, NET)["size_bits"] <= spent["size_bits"]


# Harm per BitOps of 4 -> 2 bits: a 3/24, b 1/4.
STEPS = {
    "a": {(2, 2): (3.0, {"bitops": 8}), (4, 4): (0.0, {"bitops": 32})},
    "b": {(2, 2): (1.0, {"bitops": 4}), (4, 4): (0.0, {"bitops": 8})},
}


@pytest.mark.parametrize(("limit", "bits"), [(40, (4, 4)), (39, (2, 4)), (16, (2, 4)), (15, (2, 2)), (12, (2, 2))])
def test_greedy_steps_go_by_harm_per_bitops_until_the_budget_holds(limit, bits):
    given = Search((2, 4), "none", {}, table=STEPS, limits={"bitops": limit})
    found = greedy.choose({"a": (2, 2), "b": (2, 2)}, NET, given)
    assert (found["a"][0], found["b"][0]) == bits


def test_greedy_is_worse_than_the_solver_where_a_cheap_step_is_in_vain():
    table = {
        "a": {(2, 2): (5.0, {"bitops": 2}), (4, 4): (0.0, {"bitops": 10})},
        "b": {(2, 2): (1.0, {"bitops": 8}), (4, 4): (0.0, {"bitops": 10})},
    }
    given = Search((2, 4), "none", {}, table=table, limits={"bitops": 12})
    assert greedy.choose({}, NET, given) == {"a": (2, 2), "b": (2, 2)}
    assert allocate(table, given.limits).policy == {"a": (2, 2), "b": (4, 4)}


def test_greedy_lowers_tied_activations_together_and_one_kind_at_a_time():
    limits = {"bitops": policy_costs(COMPARED, NET)["bitops"]}
    found = greedy.choose(COMPARED, NET, search(limits=limits))
    assert found["a"][1] == found["b"][1]
    assert policy_costs(found, NET)["bitops"] <= limits["bitops"]


def test_greedy_starts_at_the_most_bits_that_tied_layers_can_take():
    table = {
        "a": {(b, b): (1.0 / b, {"bitops": b}) for b in (2, 4)},
        "b": {(b, b): (1.0 / b, {"bitops": b}) for b in (2, 4, 8)},
    }
    given = Search((2, 4, 8), "none", {}, table=table, limits={"bitops": 99}, ties=Ties(both=[["a", "b"]]))
    assert greedy.choose({}, NET, given) == {"a": (4, 4), "b": (4, 4)}


def test_greedy_without_a_step_left_says_which_limit_does_not_hold():
    given = Search((2, 4), "none", {}, table=STEPS, limits={"bitops": 11})
    with pytest.raises(MixbitError, match="greedy: no step is left, and bitops still exceeds its limit"):
        greedy.choose({}, NET, given)


def test_a_float_layer_steps_to_the_most_bits_of_both():
    table = {
        "a": {("float", "float"): (0.0, {"bitops": 1024}), (8, 8): (1.0, {"bitops": 64}), (2, 8): (2.0, {"bitops": 16})}
    }
    given = Search((2, 8, "float"), "none", {}, table=table, limits={"bitops": 64})
    assert greedy.choose({}, NET, given) == {"a": (8, 8)}

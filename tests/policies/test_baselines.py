"""Every file of policies/baselines, and the two that solve."""

import random
from itertools import product

import pytest

from mixbit.costs import policy_costs
from mixbit.load import load_method, method_names
from policies.baselines import reversed as reversed_policy
from policies.baselines.statistics_init_only import choose
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
        name: {entry: (harm, policy_costs(dict.fromkeys(rows, entry), only(name))) for entry, harm in row.items()}
        for name, row in rows.items()
    }
    return Search(BITS, "none", {}, table=table, ties=Ties(activation=[["a", "b"]]), **more)


def only(name):
    return {**NET, "layers": [layer for layer in NET["layers"] if layer["name"] == name]}


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

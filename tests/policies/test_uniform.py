import pytest

from mixbit.costs import policy_costs
from mixbit.errors import MisuseError
from mixbit.experiment import LayerRule
from policies.baselines.uniform import choose, uniform
from policies.search import Search

NET = {
    "layers": [
        {"name": name, "macs": macs, "weights": macs // 10, "out_channels": 4, "never_run": False}
        for name, macs in (("first", 100), ("a", 1000), ("b", 3000), ("last", 50))
    ],
    "shared_activations": [],
    "first": "first",
    "last": "last",
}


def test_uniform_leaves_fixed_and_excluded_layers_as_they_are():
    found = uniform(NET, 3, 4, "limpq", {"b": LayerRule(exclude=True)})
    assert found == {"first": (8, 8), "a": (3, 4), "b": ("float", "float"), "last": (8, 8)}


def at_least(policy, num_bits):
    return choose(policy, NET, Search(num_bits, "limpq", {}))


def test_the_baseline_is_the_cheapest_at_equal_or_higher_bitops():
    mixed = {"first": (8, 8), "a": (6, 6), "b": (3, 3), "last": (8, 8)}
    assert at_least(mixed, (8, 2, 3, 4, 6))["a"] == (4, 4)


def test_a_uniform_policy_is_its_own_baseline():
    policy = uniform(NET, 3, 3, "limpq", {})
    assert at_least(policy, (2, 3, 4)) == policy


def test_one_bitop_more_asks_for_the_next_candidate():
    policy = uniform(NET, 3, 3, "limpq", {}) | {"a": (3, 4)}
    found = at_least(policy, (2, 3, 4))
    assert policy_costs(found, NET)["bitops"] >= policy_costs(policy, NET)["bitops"]
    assert found["b"] == (4, 4)


def test_the_dearest_is_taken_when_none_reaches_the_policy():
    assert at_least(uniform(NET, 8, 8, "limpq", {}), (2, 6, 4))["a"] == (6, 6)


def test_no_candidates_are_an_error():
    with pytest.raises(MisuseError, match="no candidates"):
        at_least(uniform(NET, 8, 8, "limpq", {}), ())

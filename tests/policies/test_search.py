import pytest

from mixbit.costs import policy_costs
from mixbit.errors import MisuseError
from mixbit.limits import COSTS
from policies.search import Search, balance, harm_table, least_of_each
from policies.table import Ties


def row(*costs_by_entry):
    return {entry: (0.0, dict.fromkeys(COSTS, cost)) for entry, cost in costs_by_entry}


TABLE = {"a": row(((2, 2), 1), ((4, 4), 5)), "b": row(((4, 4), 7), ((8, 8), 20))}


def test_the_least_of_each_cost_does_not_ask_for_the_limits():
    search = Search((2, 4, 8), "none", {}, TABLE, limits=dict.fromkeys(COSTS, 1))
    assert least_of_each(search) == dict.fromkeys(COSTS, 1 + 7)


def test_layers_that_share_bits_are_cheapest_together():
    search = Search((2, 4, 8), "none", {}, TABLE, ties=Ties(both=[["a", "b"]]))
    assert least_of_each(search) == dict.fromkeys(COSTS, 5 + 7)


def test_layers_that_cannot_share_bits_are_told():
    table = TABLE | {"c": row(((3, 3), 1))}
    with pytest.raises(MisuseError, match="group a, c: no entry that all its layers can take"):
        least_of_each(Search((2,), "none", {}, table, ties=Ties(both=[["a", "c"]])))


def test_costs_of_a_table_add_up_to_those_of_its_policy():
    made = {"macs": 9, "weights": 90, "out_channels": 3, "never_run": False}
    layers = {"layers": [{"name": "unused", **made, "never_run": True}, {"name": "a", **made}, {"name": "b", **made}]}
    table, _ = harm_table(layers, {"a": [(2, 4)], "b": [("float", "float")]}, None, 1.0)
    costs = [next(iter(entries.values()))[1] for entries in table.values()]
    policy = {"a": (2, 4), "b": ("float", "float")}
    assert {name: sum(cost[name] for cost in costs) for name in COSTS} == policy_costs(policy, layers)


def test_a_balance_is_of_the_sums_of_what_layers_can_lose():
    weight = {"a": {2: 5.0, 4: 1.0}, "b": {2: 1.0, "float": 0.0}, "fixed": {8: 0.0}}
    activation = {"a": {2: 30.0, 4: 20.0}, "b": {2: 5.0, "float": 0.0}, "fixed": {8: 0.0}}
    assert balance(weight, activation) == 15.0 / 5.0


@pytest.mark.parametrize("least", [0.0, 1e-308])
def test_where_weights_have_next_to_nothing_to_lose_alpha_is_1(least):
    assert balance({"a": {2: least, 4: 0.0}}, {"a": {2: 1e10, 4: 0.0}}) == 1.0

import pytest

from mixbit.errors import MisuseError
from mixbit.experiment import COSTS
from policies.search import Search, least_of_each
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

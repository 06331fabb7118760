"""A search without indicators, from an experiment file to registered models."""

import json

from flows.declaration import read_experiment
from flows.parameters import parameters
from tasks.place import ROOT

INDICATORS = "indicators:\n  num_bits: [2, 4, 8]\n  settings: {epochs: 1, batch_size: 16}\n"
SEARCH = """search:
  method: evolution
  num_bits: [2, 4, 8]
  settings: {population: 4, parents: 2, generations: 2}
"""


def test_a_direct_search_gives_a_policy_within_the_budget_once(again):
    again.edit(INDICATORS, SEARCH)
    computed = again.computed()
    assert "searched_policy w4a4" in computed
    assert "indicators" not in computed
    record = json.loads((again.state / "latest/tiny/searched_policy@w4a4.json").read_bytes())
    assert set(record["inputs"]) == {"dataset", "info", "proxy", "layers", "float_model"}
    assert record["params"]["search"]["budget"] == {"bitops": "w4a4"}
    assert again.computed() == []


def test_alpha_is_no_part_of_a_direct_search(offline_tiny):
    offline_tiny.edit(INDICATORS, SEARCH)
    one = parameters(read_experiment(offline_tiny.file, ROOT))
    offline_tiny.edit("alpha: 1.0", "alpha: 7.0")
    other = parameters(read_experiment(offline_tiny.file, ROOT))
    assert one.direct is not None
    assert (one.direct, one.policies) == (other.direct, other.policies)
    assert one.indicators is None

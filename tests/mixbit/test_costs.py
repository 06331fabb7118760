import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit import costs
from mixbit.entries import uniform_policy
from mixbit.errors import MisuseError


def layer(name, macs, weights, out_channels=4):
    return {"name": name, "macs": macs, "weights": weights, "out_channels": out_channels, "never_run": False}


# Input 1x9x9; conv 3x3 stride 2 without padding -> 4x4x4; linear 64 -> 10. Counted by hand.
NET = {
    "layers": [layer("conv", 4 * 4 * 4 * 9, 36), layer("middle", 1000, 200), layer("fc", 640, 640, 10)],
    "shared_activations": [],
    "first": "conv",
    "last": "fc",
}
BITS = st.integers(2, 8)


def test_bitops_of_a_net_with_stride_and_odd_input_equal_the_hand_count():
    policy = {"conv": (8, 8), "middle": (3, 5), "fc": ("float", "float")}
    assert costs.policy_costs(policy, NET)["bitops"] == 576 * 64 + 1000 * 15 + 640 * 1024


def test_size_is_policy_bits_times_weights_and_nothing_else():
    policy = {"conv": (8, 8), "middle": (3, 5), "fc": ("float", "float")}
    assert costs.policy_costs(policy, NET)["size_bits"] == 36 * 8 + 200 * 3 + 640 * 32


@given(BITS)
def test_a_uniform_policy_without_fixed_layers_compresses_by_32_over_b(bits):
    policy = uniform_policy(NET, (bits, bits), "none", {})
    assert math.isclose(32 * (36 + 200 + 640) / costs.policy_costs(policy, NET)["size_bits"], 32 / bits)


@given(BITS, BITS)
def test_bitops_are_symmetric_in_weight_and_activation_bits(w, a):
    assert (
        costs.layer_costs(NET["layers"][0], (w, a))["bitops"] == costs.layer_costs(NET["layers"][0], (a, w))["bitops"]
    )


@given(st.integers(1, 10**6), st.integers(2, 7))
def test_bitops_and_size_are_monotone_in_weight_bits(weights, bits):
    low, high = (costs.layer_costs(layer("x", 10, weights), (b, 4)) for b in (bits, bits + 1))
    assert all(low[name] < high[name] for name in ("bitops", "size_bits"))


def test_file_bytes_count_containers_scales_biases_and_nodes():
    small, constant = layer("x", 1, 1001, 8), 4 * 8 + costs.LAYER_BYTES + costs.NAME_TIMES
    found = {bits: costs.layer_costs(small, (bits, 8))["file_bytes"] - constant for bits in (2, 4, 8)}
    assert found == {2: 251 + costs.CAST_BYTES, 4: 501 + costs.CAST_BYTES, 8: 1001}


def test_what_a_file_takes_once_counts_with_the_first_layer_under_any_entry():
    rows = [costs.layer_costs(row, (4, 8))["file_bytes"] for row in NET["layers"]]
    policy = {row["name"]: (4, 8) for row in NET["layers"]}
    assert costs.policy_costs(policy, NET)["file_bytes"] == sum(rows) + costs.FILE_BYTES
    first = costs.layer_costs(NET["layers"][0], (2, 2), first=True), costs.layer_costs(NET["layers"][0], (2, 2))
    assert first[0]["file_bytes"] - first[1]["file_bytes"] == costs.FILE_BYTES
    assert first[0]["size_bits"] == first[1]["size_bits"]


def test_activations_below_8_bit_cost_nodes_and_a_long_name_is_written_often():
    short, long = layer("x", 1, 1001), layer("x" * 11, 1, 1001)
    at_8 = costs.layer_costs(short, (4, 8))["file_bytes"]
    assert costs.layer_costs(short, (4, 4))["file_bytes"] - at_8 == costs.STRETCH_BYTES
    assert costs.layer_costs(long, (4, 8))["file_bytes"] - at_8 == 10 * costs.NAME_TIMES


def test_odd_widths_are_bit_planes_where_these_are_smaller():
    def stored(weights):
        found = costs.layer_costs(layer("x", 1, weights, 0), (3, 8))["file_bytes"]
        return found - costs.LAYER_BYTES - costs.NAME_TIMES

    assert stored(80_001) == 3 * 10_001 + costs.PLANES_BYTES
    assert stored(80) == 40 + costs.CAST_BYTES


def test_a_float_layer_takes_four_bytes_a_weight():
    found = costs.layer_costs(layer("x", 1, 100, 3), ("float", "float"))["file_bytes"]
    assert found == 400 + 12 + costs.FLOAT_LAYER_BYTES


def test_w4a4_is_uniform_over_searched_layers_with_fixed_ones_as_they_are():
    found = costs.resolve_limits({"bitops": "w3a4", "size_bits": "w3a4"}, NET, "limpq", {})
    assert found == {"bitops": 64 * (576 + 640) + 12 * 1000, "size_bits": 8 * (36 + 640) + 3 * 200}


def test_times_is_the_float_model_divided_and_rounded_down():
    found = costs.resolve_limits({"bitops": "7x", "size_bits": "12.2x"}, NET, "limpq", {})
    assert found == {"bitops": 1024 * 2216 // 7, "size_bits": 32 * 876 * 10 // 122}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, "w1a1", "0x", "4", True, "w4a4 "])
def test_a_budget_that_means_nothing_is_refused(value):
    with pytest.raises(MisuseError, match="budgets: bitops: expected a positive number"):
        costs.resolve_limits({"bitops": value}, NET, "limpq", {})


def test_an_unknown_cost_names_the_nearest():
    with pytest.raises(MisuseError, match="Did you mean bitops"):
        costs.resolve_limits({"bitop": 5}, NET, "limpq", {})

"""Latency limits, tables, and fitting them: against tables made by hand."""

import itertools

import pytest

from mixbit.errors import MixbitError
from mixbit.latency import Table, device_of, executed, is_limit, limit_us, simulated_of
from mixbit.latency_fit import average_alike, calibrated, mixed_policies
from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY, is_float

NAMES = [f"l{i}" for i in range(8)]
WIDEST = dict.fromkeys(NAMES, INT8_ENTRY)
KERNELS = {name: {"float": 10.0 + i, "int8": 3.0 + i / 2} for i, name in enumerate(NAMES)}
NEIGHBOURS = {pair: 100 * (i + 1) for i, pair in enumerate(itertools.pairwise(NAMES))}
REFERENCE = {"float": 100.0, "w8a8": 40.0}


def _true_us(policy):
    """What a device takes that profiles slow down by a fourth: 5 us for all, 2 us a change and more an element."""
    layers = sum(KERNELS[name][executed(entry)] for name, entry in policy.items())
    changes = {(a, b): n for (a, b), n in NEIGHBOURS.items() if is_float(policy[a]) != is_float(policy[b])}
    elements = sum((0.01 if is_float(policy[a]) else 0.03) * count for (a, _), count in changes.items())
    return 5 + 0.8 * layers + 2 * len(changes) + elements


def _measured(count, seed):
    return [(policy, _true_us(policy)) for policy in mixed_policies(WIDEST, [], count, seed)]


@pytest.mark.parametrize(
    ("limit", "us"),
    [("8 ms", 8000), ("8ms", 8000), ("850 us", 850), ("1.5 s", 1.5e6), ("0.8x float", 80), ("1.5x w8a8", 60)],
)
def test_a_limit_is_a_time_or_a_multiple_of_a_reference(limit, us):
    assert is_limit(limit)
    assert limit_us(limit, REFERENCE) == pytest.approx(us)


@pytest.mark.parametrize(
    "limit", ["8", 8, "0 ms", "0x float", "-1 ms", "0.8x", "0.8x w4a4", "1e3 us", "nan ms", True, None]
)
def test_what_says_no_time_is_no_limit(limit):
    assert not is_limit(limit)


def test_a_cost_names_its_device():
    assert [device_of(cost) for cost in ("latency[pi-5]", "latency[]", "bitops", "latency[a b]")] == ["pi-5"] + [
        None
    ] * 3


def test_a_simulated_model_is_no_device():
    assert [device_of("latency[simulated:roofline]"), simulated_of("latency[simulated:roofline]")] == [None, "roofline"]
    assert [simulated_of(cost) for cost in ("latency[roofline]", "simulated:roofline", "bitops")] == [None] * 3


def test_any_float_side_executes_in_float_and_all_other_bits_in_int8():
    entries = [(2, 2), (8, 3), ("float", 8), (8, "float"), FLOAT_ENTRY]
    assert [executed(entry) for entry in entries] == ["int8", "int8", "float", "float", "float"]


def test_a_table_finds_back_what_made_the_times():
    table, found = calibrated(KERNELS, NEIGHBOURS, _measured(12, 0), _measured(6, 1), REFERENCE)
    expected = {"scale": 0.8, "offset_us": 5, "boundary_us": 2, "quantized_us": 0.01, "dequantized_us": 0.03}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["error"] < 1e-3
    assert found["rank_correlation"] == pytest.approx(1)
    assert Table.from_json(table.to_json()) == table


def test_boundaries_are_never_negative_so_that_a_solver_can_use_them():
    quicker = [(policy, _true_us(policy) - 6 * len(NEIGHBOURS)) for policy, _ in _measured(12, 0)]
    quicker += [(policy, us - 5) for policy, us in quicker]
    table, found = calibrated(KERNELS, NEIGHBOURS, quicker, quicker, REFERENCE)
    assert min(us for both in table.boundaries.values() for us in both) >= 0
    assert found["scale"] > 0


def test_the_error_is_that_of_policies_that_had_no_part_in_the_fit():
    off = [(policy, 1.25 * us) for policy, us in _measured(6, 1)]
    table, found = calibrated(KERNELS, NEIGHBOURS, _measured(12, 0), off, REFERENCE)
    assert table.error == found["error"] == pytest.approx(0.2, rel=1e-3)


def test_times_that_fall_where_kernels_rise_are_no_table():
    turned = [(policy, 1e6 / us) for policy, us in _measured(12, 0)]
    with pytest.raises(MixbitError, match="do not rise"):
        calibrated(KERNELS, {}, turned, turned, REFERENCE)


def test_a_change_of_precision_costs_what_its_direction_does():
    boundaries = {("a", "b"): (3.0, 4.0)}
    table = Table({"a": {"float": 5, "int8": 1}, "b": {"float": 5, "int8": 1}}, boundaries, 10, REFERENCE, 0.0)
    policies = [(FLOAT_ENTRY, FLOAT_ENTRY), (FLOAT_ENTRY, (4, 4)), ((2, 8), FLOAT_ENTRY), ((2, 2), (8, 8))]
    assert [table.predict_us(dict(zip("ab", entries, strict=True))) for entries in policies] == [20, 19, 20, 12]


def test_layers_that_do_the_same_work_share_their_mean():
    assert average_alike({"a": 1.0, "b": 3.0, "c": 7.0}, {"a": 1, "b": 1, "c": 2}) == {"a": 2.0, "b": 2.0, "c": 7.0}


def test_mixed_policies_differ_keep_float_layers_and_shared_tensors_and_are_the_same_again():
    widest = WIDEST | {"l3": FLOAT_ENTRY}
    found = mixed_policies(widest, [["l0", "l5"]], 30, 0)
    vectors = {tuple(is_float(entry) for entry in policy.values()) for policy in found}
    assert len(vectors) == len(found) == 30
    assert all(is_float(policy["l3"]) and policy["l0"] == policy["l5"] for policy in found)
    assert all(1 < sum(vector) < len(NAMES) for vector in vectors)
    assert mixed_policies(widest, [["l0", "l5"]], 30, 0) == found


def test_a_network_with_few_mixtures_has_few():
    two = {"a": INT8_ENTRY, "b": INT8_ENTRY}
    found = mixed_policies(two, [], 20, 0)
    assert sorted(found, key=str) == sorted([two | {"a": FLOAT_ENTRY}, two | {"b": FLOAT_ENTRY}], key=str)

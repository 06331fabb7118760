"""Simulated latencies: against times counted by hand."""

import itertools

import pytest

from mixbit import simulate
from mixbit.errors import MisuseError
from mixbit.experiment import LayerRule

# 1x1 over 8x8 pictures, 16 to 32 channels; and a Linear that moves more than it computes.
CONV = {"name": "conv", "macs": 32_768, "weights": 512, "out_channels": 32, "calls": 1, "in_elements": 1024}
LINEAR = {"name": "fc", "macs": 32_000, "weights": 32_000, "out_channels": 1000, "calls": 1, "in_elements": 32}
LAYERS = {
    "layers": [layer | {"never_run": False} for layer in (CONV, LINEAR)],
    "shared_activations": [], "first": "conv", "last": "fc",
}  # fmt: skip
FLOAT = ("float", "float")


@pytest.mark.parametrize(("entry", "us"), [((8, 8), 0.128), ((4, 2), 0.016), (FLOAT, 2.048)])
def test_bitops_are_time_in_proportion(entry, us):
    assert simulate.layer_us("bitops", CONV, entry) == us


@pytest.mark.parametrize(
    ("entry", "cycles"), [((8, 8), 64), ((4, 4), 16), ((2, 8), 16), ((2, 2), 4), ((3, 5), 32), (FLOAT, 256)]
)
def test_bit_bricks_fuse_to_the_widths_of_both_sides(entry, cycles):
    assert simulate.layer_us("bitfusion", CONV, entry) == cycles / 500


@pytest.mark.parametrize(("entry", "moved_bytes"), [((8, 8), 512 + 1024 + 2048), ((4, 2), 256 + 256 + 2048)])
def test_a_layer_that_moves_much_takes_as_long_as_its_bytes(entry, moved_bytes):
    assert simulate.layer_us("roofline", CONV, entry) == moved_bytes / 8000


def test_a_layer_that_computes_much_takes_as_long_as_its_products_at_the_wider_side():
    heavy = CONV | {"macs": 100 * CONV["macs"], "weights": 100 * CONV["weights"], "in_elements": 1}
    times = [simulate.layer_us("roofline", heavy | {"weights": 51_200}, entry) for entry in ((2, 8), (8, 2), (4, 3))]
    assert times == [12.8, 12.8, pytest.approx(6.4)]


@pytest.mark.parametrize("model", simulate.models())
def test_a_policy_takes_the_sum_and_fewer_bits_never_take_longer(model):
    policy = {"conv": (4, 4), "fc": (8, 8)}
    parts = [simulate.layer_us(model, CONV, (4, 4)), simulate.layer_us(model, LINEAR, (8, 8))]
    assert simulate.policy_us(model, policy, LAYERS) == pytest.approx(sum(parts))
    entries = [*itertools.pairwise((2, 3, 4, 8)), (8, "float")]
    assert all(simulate.layer_us(model, CONV, (a, a)) <= simulate.layer_us(model, CONV, (b, b)) for a, b in entries)


def test_limits_are_times_or_multiples_of_the_same_models_references():
    cost = "latency[simulated:bitfusion]"
    rules = {"fc": LayerRule(exclude=True)}
    w8a8 = simulate.policy_us("bitfusion", {"conv": (8, 8), "fc": FLOAT}, LAYERS)
    assert simulate.resolve_limits({cost: "0.5x w8a8"}, LAYERS, rules) == {cost: round(w8a8 / 2, 3)}
    assert simulate.resolve_limits({cost: "3 ms"}, LAYERS, {}) == {cost: 3000}
    assert simulate.modules({cost: "3 ms", "bitops": 1}) == ("mixbit.simulated.bitfusion",)


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(MisuseError, match="bitfusion"):
        simulate.layer_us("bitfuse", CONV, (8, 8))

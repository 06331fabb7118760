"""Peak activation memory of a small residual net: by hand, by brute force, and as a limit of an allocation."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit import costs
from mixbit.activation_memory import is_row, least_peak, of_layer, peak_activation_bytes, rows
from mixbit.errors import MisuseError
from mixbit.limits import PEAK


def tensor(elements, read_by=(), written_by=()):
    return {"elements": elements, "read_by": list(read_by), "written_by": list(written_by)}


def layer(name):
    return {"name": name, "macs": 1000, "weights": 100, "out_channels": 4, "never_run": False}


# x -> a -> y; b reads y and makes z; y + z = s is kept at 8 bit, and so are y and z; c reads s, makes the output.
NET = {
    "layers": [layer("a"), layer("b"), layer("c")],
    "shared_activations": [],
    "first": "a",
    "last": "c",
    "activations": {
        "tensors": {
            "x": tensor(101, ["a"]),
            "y": tensor(40, (), ["a"]),
            "z": tensor(40, (), ["b"]),
            "s": tensor(40, (), ["a", "b"]),
            "p": tensor(30, ["c"]),
            "out": tensor(10),
        },
        "steps": [
            {"step": "x", "alive": ["x"]},
            {"step": "a", "alive": ["x", "y"]},
            {"step": "b", "alive": ["y", "z"]},
            {"step": "add", "alive": ["y", "z", "s"]},
            {"step": "pool", "alive": ["s", "p"]},
            {"step": "c", "alive": ["p", "out"]},
        ],
    },
}
BITS = (2, 4, "float")
ENTRIES = {name: [(w, a) for w, a in product(BITS, BITS) if (w == "float") == (a == "float")] for name in "abc"}


def test_the_peak_is_the_largest_step_by_hand():
    assert peak_activation_bytes(dict.fromkeys("abc", (4, 4)), NET) == 120  # y, z and s at a byte each
    assert peak_activation_bytes(dict.fromkeys("abc", ("float", "float")), NET) == 4 * (101 + 40)
    assert peak_activation_bytes({"a": (4, 8), "b": (2, 2), "c": (2, 2)}, NET) == 101 + 40


def test_bytes_of_each_tensor_are_rounded_up():
    assert peak_activation_bytes(dict.fromkeys("abc", (4, 4)), only("x")) == 51  # 101 * 4 bits


def only(*alive):
    activations = {**NET["activations"], "steps": [{"step": "only", "alive": list(alive)}]}
    return {**NET, "activations": activations}


def test_a_float_layer_makes_the_sum_of_its_output_float():
    policy = {"a": (4, 4), "b": ("float", "float"), "c": (4, 4)}
    assert peak_activation_bytes(policy, NET) == 40 + 160 + 160


@given(st.data())
def test_the_largest_row_is_the_peak_of_every_policy(data):
    chosen = {name: data.draw(st.lists(st.sampled_from(row), min_size=1, unique=True)) for name, row in ENTRIES.items()}
    found = rows(NET, chosen)
    for entries in product(*chosen.values()):
        policy = dict(zip(chosen, entries, strict=True))
        sums = [sum(of_layer(row, NET, name, entry) for name, entry in policy.items()) for row in found]
        assert max(sums) == peak_activation_bytes(policy, NET)


def test_rows_that_another_always_exceeds_are_dropped():
    # Without float the sum is always 120 bytes; only reading x with 8 bits takes more.
    assert [row.constant for row in rows(NET, {name: [(2, 2), (4, 4)] for name in "abc"})] == [0]
    names = [row.name for row in rows(NET, {name: [(2, 2), (8, 8)] for name in "abc"})]
    assert len(names) == 2
    assert all(is_row(name) for name in names)


def test_no_policy_has_a_smaller_peak_than_the_least():
    every = [dict(zip("abc", entries, strict=True)) for entries in product(*ENTRIES.values())]
    assert least_peak(NET, ENTRIES) == min(peak_activation_bytes(policy, NET) for policy in every) == 120


def test_a_net_of_no_known_tensors_has_no_peak():
    bare = {name: value for name, value in NET.items() if name != "activations"}
    assert (peak_activation_bytes({}, bare), rows(bare, ENTRIES), least_peak(bare, ENTRIES)) == (0, [], 0)
    assert PEAK not in costs.policy_costs(dict.fromkeys("abc", (4, 4)), bare)


@pytest.mark.parametrize(
    ("value", "limit"),
    [(200, 200), ("200 B", 200), ("0.2 kB", 200), ("1.5KiB", 1536), ("2x", 4 * 141 // 2), ("w8a8", 141)],
)
def test_a_limit_is_a_number_a_size_a_share_of_float_or_that_of_a_uniform_policy(value, limit):
    assert costs.resolve_limits({PEAK: value}, NET, "none", {}) == {PEAK: limit}


@pytest.mark.parametrize("value", ["200 kb", "0 kB", "-1 kB", "1e3 B", "kB"])
def test_a_size_that_is_none_is_refused(value):
    with pytest.raises(MisuseError, match=f"budgets: {PEAK}: expected a positive number"):
        costs.resolve_limits({PEAK: value}, NET, "none", {})


def test_only_the_peak_is_a_size():
    with pytest.raises(MisuseError, match="budgets: bitops: expected a positive number"):
        costs.resolve_limits({"bitops": "200 kB"}, NET, "none", {})

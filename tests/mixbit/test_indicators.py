import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit.errors import MixbitError
from mixbit.indicators import check_table, monotone, share_activations


def table(two, four, activation=0.5):
    weight = {"2": two, "4": four, "float": 0.0}
    return {"a": {"weight": weight, "activation": {"2": activation, "4": activation, "float": 0.0}}}


@given(two=st.floats(0, 10), four=st.floats(0, 10))
def test_repaired_harm_never_rises_with_num_bits_and_never_falls_below_raw(two, four):
    repaired, repairs = monotone(table(two, four))
    row = repaired["a"]["weight"]
    assert row["2"] >= row["4"] == four
    assert row["2"] == max(two, four)
    assert len(repairs) == (two < four)


def test_a_repair_says_what_it_did():
    _, repairs = monotone(table(0.1, 0.3))
    assert repairs == [{"layer": "a", "kind": "weight", "num_bits": 2, "from": 0.1, "to": 0.3}]


def test_readers_of_one_tensor_carry_equal_parts():
    both = {"a": table(0.4, 0.2)["a"], "b": table(0.4, 0.2)["a"], "c": table(0.4, 0.2)["a"]}
    shared = share_activations(both, [["a", "b"]])
    assert shared["a"]["activation"]["2"] == shared["b"]["activation"]["2"] == 0.25
    assert shared["c"]["activation"]["2"] == 0.5
    assert shared["a"]["weight"]["2"] == 0.4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (table(float("nan"), 0.1), "finite"),
        (table(float("inf"), 0.1), "finite"),
        (table(0.2, -0.1), "not negative"),
        (table(0.1, 0.2), "never rising"),
        ({}, "layers"),
        ({"a": {"weight": {"2": 0.1, "4": 0.0, "float": 0.0}}}, "activation: num_bits"),
        ({"a": {**table(0.2, 0.1)["a"], "weight": {"2": 0.1, "float": 0.0}}}, "num_bits"),
    ],
)
def test_an_unsound_table_is_refused(bad, message):
    with pytest.raises(MixbitError, match=message):
        check_table(bad, ["a"], [2, 4], "limpq")


def test_a_sound_table_passes():
    check_table(table(0.2, 0.1), ["a"], [2, 4], "limpq")

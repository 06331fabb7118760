import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit.errors import ConfigError, MisuseError
from mixbit.policy import canonical_json, dump_policy, load_policy, mean_bits, parse_policy, policy_sha256

BITS = st.one_of(st.integers(2, 8), st.just("float"))
POLICIES = st.dictionaries(st.text(min_size=1), st.tuples(BITS, BITS), min_size=1)


@given(POLICIES)
def test_a_policy_survives_its_bytes(policy):
    assert load_policy(dump_policy(policy), "p") == policy


@given(POLICIES)
def test_the_order_of_layers_does_not_change_the_name(policy):
    assert policy_sha256(dict(reversed(policy.items()))) == policy_sha256(policy)


def test_the_bytes_are_canonical_json():
    assert dump_policy({"b": (4, "float"), "a": (2, 3)}) == (
        b'{"a":{"activation_bits":3,"weight_bits":2},"b":{"activation_bits":"float","weight_bits":4}}'
    )


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": float("nan")})


@pytest.mark.parametrize("bits", [1, 9, 4.0, "4", True, None, "Float"])
def test_num_bits_outside_2_to_8_and_float_are_refused(bits):
    with pytest.raises(MisuseError, match=r"p: a: weight_bits: expected 2\.\.8 or float"):
        parse_policy({"a": {"weight_bits": bits, "activation_bits": 4}}, "p")


def test_every_fault_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_policy({"a": {"weight_bits": 9, "activation_bits": 1}, "b": 3}, "p")
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff", b"null"])
def test_what_is_no_policy_is_an_error_with_its_place(content):
    with pytest.raises(MisuseError, match=r"^p\.json: not"):
        load_policy(content, "p.json")


def test_mean_bits_weigh_by_parameters_and_count_float_as_32():
    assert mean_bits({"a": (2, 4), "b": ("float", "float")}, {"a": 30, "b": 10}) == (9.5, 18.0)


def test_entries_need_both_bits():
    with pytest.raises(MisuseError, match="not a policy entry"):
        parse_policy(json.loads('{"a": {"weight_bits": 4}}'), "p")

"""Shares and shuffles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit.data.strata import quotas, share, shuffled

COUNTS = st.lists(st.integers(1, 400), min_size=1, max_size=30).map(np.array)


@given(COUNTS, st.floats(0.001, 1))
def test_quotas_add_up_and_stay_within_one_of_their_proportion(counts, fraction):
    total = share(fraction, counts.sum())
    quota = quotas(counts, total)
    assert quota.sum() == total
    assert np.all(np.abs(quota - counts * total / counts.sum()) < 1)
    assert np.all(quota <= counts)


def test_the_remainder_goes_to_the_largest_fraction_then_to_the_earlier_class():
    assert quotas(np.array([5, 3, 2]), 5).tolist() == [3, 1, 1]


@pytest.mark.parametrize(("fraction", "count", "expected"), [(0.5, 5, 3), (0.35, 10, 4), (1.0, 7, 7), (0.001, 10, 1)])
def test_a_share_is_rounded_half_up_as_written_and_never_nothing(fraction, count, expected):
    assert share(fraction, count) == expected


@given(st.integers(0, 300), st.integers(0, 2**31))
def test_a_shuffle_is_a_permutation(count, seed):
    assert np.array_equal(np.sort(shuffled(count, seed)), np.arange(count))


def test_a_shuffle_is_the_same_for_ever():
    assert shuffled(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert shuffled(8, 1).tolist() != shuffled(8, 0).tolist()

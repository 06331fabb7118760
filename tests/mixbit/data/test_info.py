"""dataset_info.json."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mixbit.data.arrays import KEYS, Arrays
from mixbit.data.check import checked
from mixbit.data.digits import digits
from mixbit.data.info import describe


def info_of(x):
    tensors = {key: x if key.endswith("x") else np.arange(len(x)) % 2 for key in KEYS}
    return describe(checked(Arrays(tensors), "x"), source="x", md5=None)


def test_the_digits_are_described_in_their_own_units():
    info = describe(digits(0), source="digits", md5="abc")
    train = digits(0).tensors["train_x"].astype(np.float64)
    assert (info["input_shape"], info["num_classes"], info["dtype"]) == ([1, 8, 8], 10, "uint8")
    assert info["counts"] == {"train": 1079, "val": 359, "test": 359}
    assert (info["md5"], info["source"], info["labels"][3]) == ("abc", "digits", "3")
    assert info["mean"] == pytest.approx([train.mean()], rel=1e-8)
    assert info["std"] == pytest.approx([train.std()], rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, (5, 2, 3, 3)))
def test_mean_and_std_of_bytes_agree_with_numpy_per_channel(x):
    info = info_of(x)
    std = x.astype(np.float64).std(axis=(0, 2, 3))
    assert info["mean"] == pytest.approx(x.mean(axis=(0, 2, 3)), rel=1e-8)
    assert info["std"] == pytest.approx(np.where(std > 0, std, 1.0), rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0.5, 1e3))
def test_mean_and_std_of_floats_agree_with_numpy(mean, std):
    x = np.random.default_rng(0).normal(mean, std, (5, 1, 6, 6)).astype(np.float32)
    info = info_of(x)
    assert info["std"] == pytest.approx([x.astype(np.float64).std()], rel=1e-8)


@pytest.mark.parametrize("value", [0.0, 3.5, 1e30])
def test_a_channel_that_never_changes_gets_std_one(value):
    assert info_of(np.full((4, 1, 2, 2), value, np.float32))["std"] == [1.0]

"""What a dataset must be; every fault at once."""

import numpy as np
import pytest

from mixbit.data.arrays import KEYS, Arrays, dump
from mixbit.data.check import checked
from mixbit.errors import ConfigError


def arrays(labels=(), **changes):
    x = np.arange(6 * 2 * 4 * 4, dtype=np.uint8).reshape(6, 2, 4, 4)
    tensors = {key: x if key.endswith("x") else np.array([0, 1, 2] * 2) for key in KEYS}
    return Arrays({**tensors, **changes}, labels)


def faults(*args, **changes):
    with pytest.raises(ConfigError) as caught:
        checked(arrays(*args, **changes), "mine.npz")
    return [str(fault) for fault in caught.value.faults]


def test_good_data_pass_with_classes_named_by_number():
    good = checked(arrays(), "mine.npz")
    assert good.labels == ("0", "1", "2")
    assert (good.tensors["val_x"].dtype, good.tensors["val_y"].dtype) == (np.uint8, np.int64)


def test_checking_twice_changes_nothing():
    once = checked(arrays(), "mine.npz")
    assert dump(checked(once, "mine.npz")) == dump(once)


def test_float64_becomes_float32_and_grey_pictures_get_their_channel():
    x = np.zeros((6, 4, 4))
    good = checked(arrays(train_x=x, val_x=x, test_x=x), "mine.npz")
    assert (good.tensors["test_x"].dtype, good.tensors["test_x"].shape) == (np.float32, (6, 1, 4, 4))


def test_labels_out_of_range_name_split_index_and_range():
    assert faults(val_y=np.array([0, 1, 2, 9, 1, 2])) == [
        "mine.npz: val_y: 1 labels out of range, first at index 3, expected 0..2, got 9"
    ]
    assert (
        "train_y: 2 labels out of range, first at index 0, expected 0..2, got -1"
        in faults(train_y=np.array([-1, -1, 0, 1, 2, 2]))[0]
    )


def test_given_names_set_the_range():
    assert faults(("a", "b")) == [
        f"mine.npz: {split}_y: 2 labels out of range, first at index 2, expected 0..1, got 2"
        for split in ("train", "val", "test")
    ]


def test_labels_that_are_no_whole_numbers_are_refused():
    assert faults(test_y=np.zeros(6)) == ["mine.npz: test_y: label type, expected whole numbers, got float64"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_name_split_and_index(value):
    x = np.zeros((6, 2, 4, 4), np.float32)
    bad = x.copy()
    bad[4, 0, 0, 0] = value
    found = faults(train_x=x, val_x=bad, test_x=x)
    assert found == [
        "mine.npz: val_x: NaN or infinite pixels in 1 of 6 pictures, first at index 4, expected finite float32"
    ]


def test_a_float64_pixel_beyond_float32_is_not_finite():
    x = np.full((6, 2, 4, 4), 1e300)
    assert "in 6 of 6 pictures" in faults(train_x=x, val_x=x, test_x=x)[0]


def test_an_empty_split_is_named():
    empty = {"test_x": np.zeros((0, 2, 4, 4), np.uint8), "test_y": np.zeros(0, np.int64)}
    assert faults(**empty) == ["mine.npz: test_x: empty split, expected at least one picture, got 0"]


def test_a_class_that_train_does_not_show_is_named():
    assert faults(("cat", "dog", "owl", "emu"))[0].startswith("mine.npz: train_y: no picture of class emu")


def test_one_absurd_label_does_not_list_a_billion_classes():
    message = faults(train_y=np.array([0, 1, 2, 0, 1, 10**15]))[0]
    assert len(message) < 200
    assert "no picture of class 3, 4, 5" in message


def test_one_class_is_no_classification():
    zeros = np.zeros(6, np.int64)
    assert faults(train_y=zeros, val_y=zeros, test_y=zeros)[0].startswith("mine.npz: train_y: one class")


def test_channels_last_get_a_hint():
    x = np.zeros((6, 32, 32, 3), np.uint8)
    assert all("transpose(0, 3, 1, 2)" in fault for fault in faults(train_x=x, val_x=x, test_x=x))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"val_x": np.zeros((6, 2, 5, 4), np.uint8)},
            "mine.npz: val_x: shape, expected [2, 4, 4] as in train, got [2, 5, 4]",
        ),
        (
            {"val_x": np.zeros((6, 2, 4, 4), np.float32)},
            "mine.npz: val_x: pixel type, expected uint8 as in train, got float32",
        ),
        ({"val_y": np.zeros(5, np.int64)}, "mine.npz: val_y: shape, expected [6], one label a picture, got [5]"),
        (
            {"val_y": np.zeros((6, 1), np.int64)},
            "mine.npz: val_y: shape, expected [6], one label a picture, got [6, 1]",
        ),
        ({"val_x": np.zeros((6, 2, 4, 4), np.int64)}, "expected uint8 or floating point, got int64"),
        ({"val_x": np.zeros(6, np.uint8)}, "mine.npz: val_x: shape, expected [N, C, H, W], got [6]"),
        ({"val_x": np.zeros((6, 0, 4, 4), np.uint8)}, "of at least one pixel"),
        ({"val_x": np.uint8(3)}, "mine.npz: val_x: shape, expected [N, C, H, W], got []"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_said_where_they_are(change, expected):
    assert any(expected in fault for fault in faults(**change))


def test_all_faults_come_at_once():
    x = np.full((6, 2, 4, 4), np.nan, np.float32)
    found = faults(train_x=x, val_x=x[:0], val_y=np.zeros(0, np.int64), test_x=x, test_y=np.zeros(6))
    assert [fault.split(": ")[1] for fault in found] == ["train_x", "val_x", "test_x", "test_y"]


def test_a_further_array_is_kept_and_must_have_one_row_per_picture():
    assert checked(arrays(train_severity=np.zeros(6)), "mine.npz").tensors["train_severity"].shape == (6,)
    assert faults(train_severity=np.zeros(5)) == ["mine.npz: train_severity: length, expected 6, got [5]"]

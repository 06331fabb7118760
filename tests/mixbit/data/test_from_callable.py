"""Datasets from the user's own code."""

import numpy as np
import pytest

from mixbit.data.from_callable import read
from mixbit.errors import MisuseError, MixbitError

CODE = """
import numpy as np

def make(count=4, **changes):
    x, y = np.zeros((count, 1, 2, 2), np.uint8), np.arange(count) % 2
    parts = {f"{split}_{part}": {"x": x, "y": y}[part] for split in ("train", "val", "test") for part in "xy"}
    return {**parts, "labels": ["a", "b"], **changes}

def broken():
    return 1 / 0

def nothing():
    return None

def ragged():
    return make(val_x=[[1], [1, 2]])

def objects():
    return make(val_x=np.array([object()]))
"""


@pytest.fixture
def search_path(tmp_path):
    # A module of its own per test: Python remembers modules by name.
    name = tmp_path.name
    (tmp_path / f"{name}.py").write_text(CODE)
    return name, (tmp_path,)


def test_it_is_called_with_its_arguments(search_path):
    name, folders = search_path
    arrays = read(f"{name}:make", {"count": 6}, folders)
    assert arrays.tensors["val_x"].shape == (6, 1, 2, 2)
    assert arrays.labels == ("a", "b")
    assert isinstance(arrays.tensors["test_y"], np.ndarray)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("broken", {}, "failed: ZeroDivisionError"),
        ("make", {"size": 0, "labels": "text"}, "labels: not class names"),
        ("make", {"labels": ["a", "a"]}, "labels: two classes of one name"),
        ("broken", {"x": 1}, "failed: TypeError"),
        ("nothing", {}, "not a dataset, expected a dict of train_x"),
        ("ragged", {}, "val_x: not an array"),
        ("objects", {}, "val_x: not numbers"),
        ("absent", {}, "absent in module"),
    ],
)
def test_what_it_does_wrong_is_said_in_one_line(search_path, function, arguments, expected):
    name, folders = search_path
    with pytest.raises(MixbitError, match=expected) as caught:
        read(f"{name}:{function}", arguments, folders)
    assert "\n" not in str(caught.value)


def test_the_standard_library_is_never_called():
    with pytest.raises(MisuseError, match="standard library"):
        read("os:getcwd", {}, ())

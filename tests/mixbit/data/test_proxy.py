"""Proxies: exact size, every class in proportion, no chance but the seed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbit.data.arrays import Arrays, dump
from mixbit.data.digits import digits
from mixbit.data.proxy import PICKERS, herding, k_centre, pixel_components, select
from mixbit.data.strata import share
from mixbit.errors import MisuseError, MixbitError

METHODS = ("stratified", *PICKERS)


@pytest.fixture(scope="module")
def train():
    arrays = digits(0)
    return arrays.tensors["train_x"], arrays.tensors["train_y"]


@st.composite
def datasets(draw):
    counts = draw(st.lists(st.integers(4, 25), min_size=1, max_size=5))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    y = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    return generator.normal(size=(len(y), 1, 4, 3)).astype(np.float32), y


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(data=datasets(), fraction=st.floats(0.3, 1), seed=st.integers(0, 9))
def test_a_proxy_has_the_exact_size_and_each_class_within_one_of_its_proportion(method, data, fraction, seed):
    x, y = data
    chosen = select(x, y, method=method, fraction=fraction, seed=seed)
    total = share(fraction, len(y))
    assert len(chosen) == len(set(chosen.tolist())) == total
    assert np.array_equal(chosen, np.sort(chosen))
    for label in np.unique(y):
        assert abs((y[chosen] == label).sum() - (y == label).sum() * total / len(y)) < 1


@pytest.mark.parametrize("method", PICKERS)
@settings(max_examples=40, deadline=None)
@given(data=datasets(), order_seed=st.integers(0, 2**31))
def test_the_order_of_train_does_not_change_which_pictures_are_picked(method, data, order_seed):
    x, y = data
    order = np.random.default_rng(order_seed).permutation(len(y))
    chosen = select(x, y, method=method, fraction=0.5, seed=0)
    again = select(x[order], y[order], method=method, fraction=0.5, seed=0)
    assert set(order[again].tolist()) == set(chosen.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_choosing_twice_gives_the_same(train, method):
    first, second = (select(*train, method=method, fraction=0.5, seed=3) for _ in range(2))
    assert np.array_equal(first, second)


def test_only_stratified_reads_the_seed(train):
    changed = {
        method: not np.array_equal(*(select(*train, method=method, fraction=0.5, seed=seed) for seed in (0, 1)))
        for method in METHODS
    }
    assert changed == {"stratified": True, "herding": False, "k_centre": False}


def test_herding_keeps_the_mean_closer_than_chance(train):
    space = pixel_components(train[0])
    mean = space.mean(axis=0)
    picked = np.linalg.norm(space[herding(space, 40)].mean(axis=0) - mean)
    chance = [
        np.linalg.norm(space[np.random.default_rng(s).permutation(len(space))[:40]].mean(axis=0) - mean)
        for s in range(20)
    ]
    assert picked < 0.5 * min(chance)


def test_herding_on_a_line_picks_what_balances_the_mean():
    assert herding(np.array([[-3.0], [-1.0], [0.1], [1.0], [3.0]]), 3).tolist() == [2, 1, 3]


def _radius(space, picked):
    return np.linalg.norm(space[:, None] - space[picked], axis=2).min(axis=1).max()


def test_k_centre_covers_better_than_chance(train):
    space = pixel_components(train[0])
    chance = [_radius(space, np.random.default_rng(seed).permutation(len(space))[:40]) for seed in range(20)]
    assert _radius(space, k_centre(space, 40)) < min(chance)


def test_k_centre_on_a_line_takes_the_middle_then_the_ends():
    assert k_centre(np.array([[0.0], [4.0], [5.0], [10.0]]), 3).tolist() == [2, 0, 3]


def test_equal_pictures_are_picked_in_their_order():
    x, y = np.ones((6, 1, 2, 2), np.uint8), np.zeros(6, np.int64)
    assert [select(x, y, method=method, fraction=0.5, seed=0).tolist() for method in PICKERS] == [[0, 1, 2]] * 2


def test_components_of_large_pictures_are_few_and_keep_their_spread():
    x = np.random.default_rng(0).integers(0, 256, (30, 3, 70, 45)).astype(np.uint8)
    space = pixel_components(x)
    assert space.shape == (30, 32)
    assert np.isclose(np.square(space).sum(axis=1).mean(), 1)


def test_a_class_without_a_picture_is_refused_by_name_with_a_fraction_that_would_do():
    x, y = np.zeros((103, 1, 2, 2), np.uint8), np.repeat([0, 1], [100, 3])
    with pytest.raises(MixbitError, match=r"small: no picture of class rare.*A fraction of 0\.3334 would do"):
        select(x, y, method="stratified", fraction=0.01, seed=0, labels=("common", "rare"), where="small")
    assert 1 in y[select(x, y, method="stratified", fraction=0.3334, seed=0)]


@pytest.mark.parametrize(
    "change", [{"method": "random"}, {"fraction": 0.0}, {"fraction": 1.5}, {"fraction": float("nan")}]
)
def test_an_unknown_method_or_fraction_is_misuse(change):
    with pytest.raises(MisuseError, match=str(next(iter(change.values())))):
        select(np.zeros((4, 1, 2, 2)), np.zeros(4), **{"method": "herding", "fraction": 0.5, "seed": 0, **change})


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(103, 1, 2, 2)).astype(np.float32), np.repeat([0, 1], [100, 3])
    parts = {f"{split}_{part}": array for split in ("train", "val", "test") for part, array in (("x", x), ("y", y))}
    (tmp_path / "data.safetensors").write_bytes(dump(Arrays(parts, ("common", "rare"))))
    command = [sys.executable, "-m", "mixbit.data.proxy", "--dataset", str(tmp_path / "data.safetensors")]
    settings_ = ["--method", "herding", "--seed", "0", "--out", str(tmp_path / "part.json"), "--fraction"]
    ran = subprocess.run([*command, *settings_, "0.01"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("part: no picture of class rare")
    assert ran.stderr.count("\n") == 1
    assert subprocess.run([*command, *settings_, "0.5"], check=False).returncode == 0
    assert json.loads((tmp_path / "part.json").read_text())["count"] == 52

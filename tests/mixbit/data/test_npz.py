"""Datasets in an npz."""

import pickle

import numpy as np
import pytest

from mixbit.data.arrays import KEYS, dump, load
from mixbit.data.npz import read
from mixbit.errors import MixbitError

X, Y = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])
GOOD = {key: X if key.endswith("x") else Y for key in KEYS}


def test_an_npz_gives_its_arrays_and_labels(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", **GOOD, labels=np.array(["cat", "dög"]), more=np.ones(3))
    arrays = read(tmp_path / "d.npz", "d.npz")
    assert arrays.labels == ("cat", "dög")
    assert set(arrays.tensors) == set(KEYS)


def test_missing_keys_are_named_with_the_expected_ones(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=X, train_x=X, train_y=Y)
    with pytest.raises(MixbitError) as caught:
        read(tmp_path / "d.npz", "d.npz")
    assert str(caught.value) == (
        "d.npz: missing val_x, val_y, test_x, test_y, "
        "expected train_x, train_y, val_x, val_y, test_x, test_y, got train_x, train_y"
    )


class Bomb:
    def __reduce__(self):
        return print, ("ran",)


def test_objects_are_refused_and_never_run(tmp_path, capsys):
    np.savez(tmp_path / "d.npz", **{**GOOD, "val_y": np.array([Bomb()] * 4, dtype=object)})
    with pytest.raises(MixbitError, match=r"d\.npz: val_y: cannot be read.*pickle"):
        read(tmp_path / "d.npz", "d.npz")
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(MixbitError, match="not a readable npz"):
        read(tmp_path / "p.npz", "p.npz")
    assert capsys.readouterr().out == ""


def test_texts_are_no_pixels(tmp_path):
    np.savez(tmp_path / "d.npz", **{**GOOD, "val_x": np.array(["a", "b"])})
    with pytest.raises(MixbitError, match=r"d\.npz: val_x: not numbers"):
        read(tmp_path / "d.npz", "d.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 damaged"])
def test_what_is_no_npz_is_said_in_one_line(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(MixbitError, match=r"^d\.npz: not a readable npz file"):
        read(tmp_path / "d.npz", "d.npz")


def test_a_damaged_member_is_named(tmp_path):
    np.savez(tmp_path / "d.npz", **GOOD)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    place = content.index(b"\x93NUMPY")
    content[place + 130] ^= 0xFF
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(MixbitError, match=r"d\.npz: train_x: cannot be read"):
        read(tmp_path / "d.npz", "d.npz")


def test_a_single_array_is_no_dataset(tmp_path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(MixbitError, match="a single array"):
        read(tmp_path / "d.npy", "d.npy")


def test_the_canonical_file_reads_back_as_it_was(tmp_path):
    np.savez(tmp_path / "d.npz", **GOOD, labels=np.array(["a", "b"]))
    arrays = read(tmp_path / "d.npz", "d.npz")
    (tmp_path / "d").write_bytes(dump(arrays))
    again = load(tmp_path / "d", "d")
    assert dump(again) == dump(arrays)
    assert again.labels == ("a", "b")


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_cut_safetensors_file_is_said_in_one_line(tmp_path, keep):
    np.savez(tmp_path / "d.npz", **GOOD)
    (tmp_path / "d").write_bytes(dump(read(tmp_path / "d.npz", "d.npz"))[:keep])
    with pytest.raises(MixbitError, match=r"^d: not a readable safetensors file"):
        load(tmp_path / "d", "d")

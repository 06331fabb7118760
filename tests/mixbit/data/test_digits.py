"""scikit-learn's digits in three splits."""

import subprocess
import sys

import numpy as np

from mixbit.data.arrays import SPLITS, dump
from mixbit.data.check import checked
from mixbit.data.digits import digits


def test_the_digits_are_split_sixty_twenty_twenty_without_overlap_in_index():
    tensors = digits(0).tensors
    assert [len(tensors[f"{split}_y"]) for split in SPLITS] == [1079, 359, 359]
    whole = np.concatenate([tensors[f"{split}_x"] for split in SPLITS])
    assert (whole.dtype, whole.shape, whole.max()) == (np.uint8, (1797, 1, 8, 8), 16)


def test_every_class_is_in_proportion_in_every_split():
    tensors = digits(0).tensors
    counts = {split: np.bincount(tensors[f"{split}_y"]) for split in SPLITS}
    everything = sum(counts.values())
    assert np.all(np.abs(counts["val"] - 0.2 * everything) <= 1)
    assert np.all(np.abs(counts["test"] - 0.2 * everything) <= 1)


def test_the_digits_pass_the_checks():
    arrays = digits(0)
    assert dump(checked(arrays, "digits")) == dump(arrays)


def test_another_process_writes_the_same_bytes_and_another_seed_others(tmp_path):
    command = [sys.executable, "-m", "mixbit.data.digits", "--out", str(tmp_path / "new" / "d"), "--seed", "0"]
    subprocess.run(command, check=True)
    assert (tmp_path / "new" / "d").read_bytes() == dump(digits(0))
    assert dump(digits(1)) != dump(digits(0))

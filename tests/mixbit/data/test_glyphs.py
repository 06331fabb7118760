"""Drawn characters: what every picture of them is worth knowing by."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from mixbit.data import glyphs_drawing
from mixbit.data.arrays import SPLITS, dump, load
from mixbit.data.check import checked
from mixbit.data.glyphs import CHARACTERS, CLASSES, COUNTS, glyphs
from mixbit.data.glyphs_drawing import SEVERITIES, Stream, picture
from mixbit.errors import MixbitError

FEW = {"train": 2 * len(CLASSES) * SEVERITIES, "val": 60, "test": 94}


@pytest.fixture(scope="module")
def few():
    return glyphs(0, FEW)


def test_the_whole_set_is_twenty_two_and_four_thousand_pictures():
    assert [COUNTS[split] for split in SPLITS] == [20_000, 2_000, 4_000]


def test_pictures_are_grey_bytes_of_thirty_two_by_thirty_two(few):
    assert {(few.tensors[f"{split}_x"].dtype.str, *few.tensors[f"{split}_x"].shape[1:]) for split in SPLITS} == {
        ("|u1", 1, 32, 32)
    }
    assert all(len(few.tensors[f"{split}_{part}"]) == FEW[split] for split in SPLITS for part in ("x", "y", "severity"))


def test_characters_that_look_alike_are_one_of_forty_seven_classes():
    assert len(CLASSES) == 47
    assert {"0Oo", "1Il|", "Cc", "Ss", "8", "a"} <= set(CLASSES)
    assert sorted("".join(CLASSES)) == sorted(CHARACTERS)


def test_every_class_shows_every_severity_equally_often(few):
    pairs = few.tensors["train_y"] * SEVERITIES + few.tensors["train_severity"]
    assert np.bincount(pairs).tolist() == [2] * (len(CLASSES) * SEVERITIES)


@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_are_balanced_to_within_one_picture(few, split):
    counts = np.bincount(few.tensors[f"{split}_y"], minlength=len(CLASSES))
    assert counts.max() - counts.min() <= 1


def test_more_severe_is_noisier_and_fainter(few):
    pictures, severity = few.tensors["train_x"][:, 0].astype(float), few.tensors["train_severity"]
    grain = [np.abs(np.diff(pictures[severity == grade][:, :4], axis=2)).mean() for grade in range(SEVERITIES)]
    spread = [
        np.ptp(np.sort(pictures[severity == grade].reshape(-1, 1024))[:, 50:-50], axis=1).mean() for grade in (0, 4)
    ]
    assert grain == sorted(grain)
    assert spread[0] > spread[1]


def test_another_process_draws_the_same_bytes_and_another_seed_others(few):
    code = (
        "from hashlib import sha256\nfrom mixbit.data.arrays import dump\nfrom mixbit.data.glyphs import glyphs\n"
        f"print(sha256(dump(glyphs(0, {FEW}))).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == hashlib.sha256(dump(few)).hexdigest()
    assert not np.array_equal(glyphs(1, FEW).tensors["val_x"], few.tensors["val_x"])


def test_a_picture_does_not_depend_on_how_many_there_are():
    first, again = (picture("R", ("a", "7"), 3, Stream(0, 1, 2)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, picture("R", ("a", "7"), 3, Stream(0, 1, 3)))


def test_no_picture_is_in_two_splits(few):
    seen = [one.tobytes() for split in SPLITS for one in few.tensors[f"{split}_x"]]
    assert len(set(seen)) == len(seen)


def test_noise_has_mean_zero_and_deviation_one():
    noise = np.stack([Stream(0, index).noise() for index in range(50)])
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_severities_outlive_the_file_and_the_checks(few, tmp_path):
    (tmp_path / "g").write_bytes(dump(few))
    arrays = checked(load(tmp_path / "g", "glyphs"), "glyphs")
    assert np.array_equal(arrays.tensors["test_severity"], few.tensors["test_severity"])
    assert dump(arrays) == dump(few)


def test_other_fonts_are_refused_with_the_version_that_ships_them(monkeypatch):
    monkeypatch.setattr(glyphs_drawing, "FACES_SHA256", "0" * 64)
    glyphs_drawing._fonts.cache_clear()
    with pytest.raises(MixbitError, match=r"other fonts.*expected sha256 0000.*got 16ba\w+ in matplotlib \d"):
        glyphs_drawing._fonts()

"""Datasets in a folder of pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mixbit.data.check import checked
from mixbit.data.folder import read
from mixbit.errors import ConfigError


def picture(path, size=(4, 4), mode="L", value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val", "test"):
        for number, name in enumerate(("zebra", "ant")):
            picture(tmp_path / "pets" / split / name / "1.png", value=number)
            picture(tmp_path / "pets" / split / name / "2.png", value=number)
    return tmp_path / "pets"


def faults(folder, **more):
    with pytest.raises(ConfigError) as caught:
        read(folder, "pets", **more)
    return [str(fault) for fault in caught.value.faults]


def test_classes_are_the_sorted_folder_names(folder):
    arrays = checked(read(folder, "pets"), "pets")
    assert arrays.labels == ("ant", "zebra")
    assert arrays.tensors["train_x"].shape == (4, 1, 4, 4)
    assert arrays.tensors["train_x"][:, 0, 0, 0].tolist() == [1, 1, 0, 0]
    assert arrays.tensors["train_y"].tolist() == [0, 0, 1, 1]


def test_one_coloured_picture_makes_all_of_them_coloured(folder):
    picture(folder / "val" / "ant" / "3.png", mode="RGB", value=(1, 2, 3))
    arrays = checked(read(folder, "pets"), "pets")
    assert arrays.tensors["val_x"][2, :, 0, 0].tolist() == [1, 2, 3]
    assert arrays.tensors["train_x"].shape == (4, 3, 4, 4)


def test_mixed_sizes_name_the_file_and_the_way_out(folder):
    picture(folder / "val" / "ant" / "wide.png", size=(6, 4))
    (fault,) = faults(folder)
    assert fault.startswith("val/ant/wide.png: another size, expected 4x4 as the first picture, got 6x4. Set")


def test_image_size_resizes_every_picture(folder):
    picture(folder / "val" / "ant" / "wide.png", size=(60, 40))
    arrays = read(folder, "pets", image_size=8)
    assert arrays.tensors["val_x"].shape == (5, 1, 8, 8)
    assert np.all(arrays.tensors["val_x"][2] == 7)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_a_damaged_picture_is_named(folder, content):
    (folder / "test" / "zebra" / "1.png").write_bytes(content)
    (fault,) = faults(folder)
    assert fault.startswith("test/zebra/1.png: damaged picture")


def test_a_cut_picture_is_named(folder):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = folder / "train" / "ant" / "1.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert "train/ant/1.png: damaged picture" in faults(folder)[0]


def test_a_class_that_train_does_not_have_is_refused(folder):
    picture(folder / "val" / "owl" / "1.png")
    assert faults(folder) == ["val/owl: not a class of train, expected ant, zebra"]


def test_files_that_are_no_pictures_are_named_but_hidden_ones_pass(folder):
    (folder / "train" / "ant" / "notes.txt").write_text("x")
    (folder / "train" / "ant" / ".DS_Store").write_text("x")
    assert [fault.split(",")[0] for fault in faults(folder)] == ["train/ant/notes.txt: not a picture file"]


def test_sixteen_bit_pictures_are_refused_not_clipped(folder):
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(folder / "val" / "ant" / "1.png")
    assert "val/ant/1.png: more than 8 bits per channel" in faults(folder)[0]


def test_a_missing_split_is_named_with_what_is_there(folder):
    shutil.rmtree(folder / "val")
    assert faults(folder) == ["pets: no folder val, expected train, val, test, got test, train"]


def test_an_empty_split_is_left_to_the_checks(folder):
    shutil.rmtree(folder / "test" / "ant")
    shutil.rmtree(folder / "test" / "zebra")
    with pytest.raises(ConfigError, match="pets: test_x: empty split"):
        checked(read(folder, "pets"), "pets")


def test_all_faults_come_at_once(folder):
    picture(folder / "val" / "owl" / "1.png")
    (folder / "test" / "zebra" / "1.png").write_bytes(b"")
    picture(folder / "train" / "ant" / "9.png", size=(9, 9))
    assert len(faults(folder)) == 3

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mixbit.training.batches import Pictures, calibration_pictures, epoch_batches, normalize, read_pictures

INFO = {"mean": [10.0, 20.0], "std": [2.0, 4.0]}


def test_normalize_works_per_channel_on_bytes():
    x = torch.tensor([12, 28], dtype=torch.uint8).view(1, 2, 1, 1)
    assert normalize(x, INFO).flatten().tolist() == [1.0, 2.0]


@given(count=st.integers(2, 40), batch_size=st.integers(1, 16), epoch=st.integers(0, 5))
def test_an_epoch_visits_each_picture_once_but_for_a_lonely_last_one(count, batch_size, epoch):
    batches = epoch_batches(count, batch_size, 0, epoch)
    seen = torch.cat(batches).tolist()
    assert len(seen) == len(set(seen)) >= count - 1
    assert len(seen) == count or len(batches[-1]) == batch_size


def test_order_depends_on_seed_and_epoch_only():
    first = torch.cat(epoch_batches(50, 8, 1, 2))
    torch.rand(3)
    assert torch.equal(first, torch.cat(epoch_batches(50, 8, 1, 2)))
    assert not torch.equal(first, torch.cat(epoch_batches(50, 8, 1, 3)))
    assert not torch.equal(first, torch.cat(epoch_batches(50, 8, 2, 2)))


def test_one_split_is_read(tmp_path):
    save_file({"val_x": torch.ones(3, 2, 1, 1), "val_y": torch.arange(3)}, tmp_path / "data")
    pictures = read_pictures(tmp_path / "data", INFO, "val")
    assert len(pictures) == 3
    assert pictures.subset(torch.tensor([2])).y.tolist() == [2]


def test_calibration_takes_at_most_what_there_is():
    pictures = Pictures(torch.ones(3, 2, 1, 1), torch.arange(3), INFO)
    assert calibration_pictures(pictures, 8, seed=0).shape == (3, 2, 1, 1)

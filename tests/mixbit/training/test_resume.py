import pytest
import torch

from mixbit.training.resume import latest_checkpoint, write_checkpoint


def write(folder, number):
    write_checkpoint(folder, number, {"w": torch.full((3,), float(number))}, {"identity": "me", "step": number})


def test_the_newest_checkpoint_is_found_and_old_ones_are_gone(tmp_path):
    for number in (1, 5, 12):
        write(tmp_path, number)
    tensors, state = latest_checkpoint(tmp_path, "me")
    assert state["step"] == 12
    assert tensors["w"].tolist() == [12.0] * 3
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["12.json", "5.json"]


@pytest.mark.parametrize("name", ["2.safetensors", "2.json"])
def test_an_altered_checkpoint_gives_way_to_the_one_before(tmp_path, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    content = bytearray((tmp_path / name).read_bytes())
    content[-5] ^= 1
    (tmp_path / name).write_bytes(content)
    assert latest_checkpoint(tmp_path, "me")[1]["step"] == 1


@pytest.mark.parametrize("name", ["1.safetensors", "1.json"])
def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path, name):
    write(tmp_path, 1)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert latest_checkpoint(tmp_path, "me") is None


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    write(tmp_path, 1)
    assert latest_checkpoint(tmp_path, "other") is None
    assert latest_checkpoint(tmp_path / "nowhere", "me") is None

import zipfile

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from mixbit.errors import MisuseError, MixbitError
from mixbit.models.build import build_model, load_checkpoint_
from mixbit.models.resnet import resnet8, resnet20

FACTORY = "mixbit.models.resnet:resnet8"


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "their_factories.py").write_text(
        "def explode(width):\n    raise ValueError(f'no width {width}\\nsecond line')\n\ndef number():\n    return 3\n"
    )
    return (tmp_path,)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = build_model(FACTORY, {"num_classes": 4}, (), seed=7)
    torch.manual_seed(2)
    two, other = (build_model(FACTORY, {"num_classes": 4}, (), seed=seed) for seed in (7, 8))
    assert torch.equal(one.conv.weight, two.conv.weight)
    assert not torch.equal(one.conv.weight, other.conv.weight)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    build_model(FACTORY, {"num_classes": 4}, (), seed=7)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (32, 32)])
def test_resnets_take_any_picture_size(size):
    for make in (resnet8, resnet20):
        model = build_model(f"mixbit.models.resnet:{make.__name__}", {"num_classes": 4, "width": 4}, (), 0).eval()
        assert model(torch.zeros(2, 3, *size)).shape == (2, 4)


def test_a_factory_that_raises_is_told_in_one_line_with_its_arguments(factories):
    with pytest.raises(MixbitError) as caught:
        build_model("their_factories:explode", {"width": 3}, factories, 0)
    assert str(caught.value).startswith(
        "their_factories:explode: the factory failed when called with (width=3): ValueError: no width 3. "
    )


def test_a_factory_that_does_not_take_the_arguments_is_told():
    with pytest.raises(MixbitError, match=r"called with \(depth=3\): TypeError: .*unexpected keyword argument 'depth'"):
        build_model(FACTORY, {"depth": 3}, (), 0)


def test_what_is_no_module_is_refused(factories):
    with pytest.raises(MisuseError, match=r"expected a callable that returns an nn.Module, got int"):
        build_model("their_factories:number", {}, factories, 0)
    with pytest.raises(MisuseError, match="standard library"):
        build_model("os:system", {}, (), 0)


def save_as(kind, state, path):
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if kind == "state_dict" else {kind: state, "epoch": 3}, path)


@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "model"])
def test_a_checkpoint_is_known_by_its_content_not_its_name(tmp_path, kind):
    saved, loaded, path = resnet8(4, width=4), resnet8(4, width=4), tmp_path / "0123abcd"
    save_as(kind, saved.state_dict(), path)
    load_checkpoint_(loaded, path)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_checkpoint_of_another_architecture_lists_the_first_differences(tmp_path):
    save_file(resnet8(4, width=8).state_dict(), tmp_path / "c")
    with pytest.raises(MixbitError) as caught:
        load_checkpoint_(resnet8(4, width=4), tmp_path / "c")
    said = str(caught.value)
    assert "conv.weight expected [4, 3, 3, 3], got [8, 3, 3, 3]" in said
    assert "more" in said
    assert "\n" not in said


def test_missing_and_unknown_names_are_told(tmp_path):
    state = resnet8(4, width=4).state_dict()
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, tmp_path / "c")
    with pytest.raises(MixbitError, match=r"fc\.weight is missing; head\.weight is unknown to the model"):
        load_checkpoint_(resnet8(4, width=4), tmp_path / "c")


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "c")
    with pytest.raises(MixbitError, match=r"pickle that holds more than tensors .* safetensors\.torch\.save_file"):
        load_checkpoint_(nn.Linear(2, 2), tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense", b"\x80\x02nonsense"])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(MixbitError, match="checkpoint: "):
        load_checkpoint_(nn.Linear(2, 2), tmp_path / "c")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(MixbitError, match="cannot be read"):
        load_checkpoint_(nn.Linear(2, 2), tmp_path / "c")


def test_weights_with_nan_are_refused_by_name(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    state["bias"][0] = float("nan")
    save_file(state, tmp_path / "c")
    with pytest.raises(MixbitError, match="checkpoint: bias: NaN or infinity"):
        load_checkpoint_(nn.Linear(2, 2), tmp_path / "c")


def test_an_old_checkpoint_without_batchnorm_counters_loads(tmp_path):
    state = {n: t for n, t in resnet8(4, width=4).state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "c")
    load_checkpoint_(resnet8(4, width=4), tmp_path / "c")


@pytest.mark.parametrize("header_bytes", [0x180, 0x4B50])
def test_a_safetensors_header_whose_length_looks_like_a_pickle_or_a_zip_is_read(tmp_path, header_bytes):
    tensors = nn.Linear(2, 2).state_dict()
    content = save(tensors)
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip().ljust(header_bytes)
    path = tmp_path / "weights"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    model = nn.Linear(2, 2)
    load_checkpoint_(model, path)
    assert torch.equal(model.weight, tensors["weight"])

import json

import pytest
import torch
from safetensors.torch import load, load_file

from mixbit.models.build import build_model
from mixbit.models.quantize import load_quantized
from mixbit.models.settle import SCALE_UNIT
from mixbit.policy import dump_policy, load_policy
from mixbit.training.batches import read_info, read_pictures
from mixbit.training.evaluate import evaluate
from mixbit.training.task import classification
from tasks import finetuned_model, float_model, indicators
from tests.tasks.training_case import MODEL, run, write_inputs

FINETUNE = {"finetune": {"epochs": 2, "batch_size": 16}}
NONE = {"finetune": "none"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    files = write_inputs(folder)
    data = {name: files[name] for name in ("dataset", "info")}
    run(float_model, data, folder / "float", {"train": {"epochs": 5, "batch_size": 16}})
    files["float_model"] = folder / "float" / "out" / "float_model.safetensors"
    run(indicators, files, folder / "indicators", {"num_bits": (2, 4), "settings": {"epochs": 1, "batch_size": 8}})
    return {**files, "supernet": folder / "indicators" / "out" / "supernet.safetensors"}


def under(inputs, folder, weight_bits, activation_bits, *, supernet=True):
    """The inputs with a uniform policy, first and last layer included."""
    names = [layer["name"] for layer in json.loads(inputs["layers"].read_bytes())["layers"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy").write_bytes(dump_policy(dict.fromkeys(names, (weight_bits, activation_bits))))
    return {name: path for name, path in inputs.items() if supernet or name != "supernet"} | {
        "policy": folder / "policy"
    }


def test_the_saved_model_gives_the_reported_figures(inputs, tmp_path):
    files = under(inputs, tmp_path, 4, 4)
    saved, figures = run(finetuned_model, files, tmp_path / "stage", FINETUNE)
    model = build_model(MODEL["factory"], MODEL["arguments"], (), seed=0).eval()
    policy = load_policy(files["policy"].read_bytes(), "")
    tensors = load(saved["finetuned_model.safetensors"])
    quantized = load_quantized(model, json.loads(files["layers"].read_bytes()), policy, tensors)
    info = read_info(files["info"])
    val = read_pictures(files["dataset"], info, "val")
    again = evaluate(quantized, val.x, val.y, info, classification())
    assert figures == {"val_metric": again.metric, "val_loss": pytest.approx(again.loss, rel=1e-6)}
    assert figures["val_metric"] > 0.8


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_an_interrupted_stage_ends_with_the_same_bytes(inputs, tmp_path, monkeypatch, distill):
    monkeypatch.setattr("mixbit.training.fit.Keeping.__init__.__defaults__", (0.0, 1e9))
    files = under(inputs, tmp_path, 2, 4)
    params = {"finetune": {**FINETUNE["finetune"], "distill": distill}}
    undisturbed = run(finetuned_model, files, tmp_path / "a", params)

    def stop(done, total, note):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(finetuned_model, files, tmp_path / "b", params, progress=stop)
    steps = []
    assert run(finetuned_model, files, tmp_path / "b", params, progress=lambda n, *_: steps.append(n)) == undisturbed
    assert steps == [5, 6]


def test_the_supernet_is_where_training_starts_unless_float_is_asked_for(inputs, tmp_path):
    with_supernet, without = under(inputs, tmp_path, 4, 4), under(inputs, tmp_path, 4, 4, supernet=False)
    start_float = {"finetune": {**FINETUNE["finetune"], "start": "float"}}
    warm = run(finetuned_model, with_supernet, tmp_path / "a", FINETUNE)
    assert run(finetuned_model, with_supernet, tmp_path / "b", start_float) != warm
    cold = run(finetuned_model, without, tmp_path / "c", FINETUNE)
    assert cold == run(finetuned_model, without, tmp_path / "d", start_float)


def test_an_all_float_policy_without_finetuning_is_the_float_model_itself(inputs, tmp_path):
    files = under(inputs, tmp_path, "float", "float", supernet=False)
    saved, _ = run(finetuned_model, files, tmp_path / "stage", NONE)
    tensors, given = load(saved["finetuned_model.safetensors"]), load_file(files["float_model"])
    assert set(tensors) == set(given)
    assert all(torch.equal(tensors[name], given[name]) for name in given)


def test_without_finetuning_weights_stay_and_batchnorms_and_biases_hardly_move(inputs, tmp_path):
    files = under(inputs, tmp_path, 4, 4, supernet=False)
    saved, figures = run(finetuned_model, files, tmp_path / "stage", NONE)
    tensors, given = load(saved["finetuned_model.safetensors"]), load_file(files["float_model"])
    changed = {name for name in given if not torch.equal(tensors[name], given[name])}
    settled = {name for name in changed if "running_" not in name and "num_batches" not in name}
    assert settled
    assert changed - settled
    assert all(tensors[name].ndim == 1 for name in settled)
    assert all(torch.allclose(tensors[name], given[name], rtol=2**-9, atol=2**-9) for name in settled)
    assert figures["val_metric"] > 0.5


def test_the_saved_scales_of_a_layer_without_batchnorm_are_16_bit_numbers(inputs, tmp_path):
    saved, _ = run(finetuned_model, under(inputs, tmp_path, 4, 4), tmp_path / "stage", FINETUNE)
    tensors = load(saved["finetuned_model.safetensors"])
    for held in (tensors["fc.weight_quantizer.scale"] / SCALE_UNIT, tensors["fc.bias"]):
        assert torch.equal(held, held.half().float())


def test_finetuning_does_not_touch_its_inputs_nor_need_a_test_split(inputs, tmp_path):
    files = under(inputs, tmp_path, 8, 8)
    before = {name: path.read_bytes() for name, path in files.items()}
    run(finetuned_model, files, tmp_path / "stage", FINETUNE)
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_weights_per_tensor_have_a_single_scale(inputs, tmp_path):
    files = under(inputs, tmp_path, 4, 4)
    params = {"finetune": {**FINETUNE["finetune"], "per_channel": False}}
    saved, _ = run(finetuned_model, files, tmp_path / "stage", params)
    tensors = load(saved["finetuned_model.safetensors"])
    assert tensors["stages.0.conv1.weight_quantizer.scale"].shape == ()

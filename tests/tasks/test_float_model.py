import pytest
import torch
from safetensors.torch import load, save_file

from mixbit.errors import MixbitError
from mixbit.models.build import build_model
from tasks import float_model
from tests.tasks.training_case import MODEL, make_work, run, write_inputs

TRAIN = {"train": {"epochs": 6, "batch_size": 16}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    every = write_inputs(tmp_path_factory.mktemp("inputs"))
    return {name: every[name] for name in ("dataset", "info")}


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return run(float_model, inputs, tmp_path_factory.mktemp("stage"), TRAIN)


def test_training_learns_the_classes(trained):
    _, figures = trained
    assert set(figures) == {"val_metric", "val_loss"}
    assert figures["val_metric"] > 0.9


def test_equal_parameters_give_equal_bytes_and_another_seed_does_not(inputs, trained, tmp_path):
    assert run(float_model, inputs, tmp_path / "a", TRAIN)[0] == trained[0]
    assert run(float_model, inputs, tmp_path / "b", {**TRAIN, "seed": 1})[0] != trained[0]


def test_an_interrupted_stage_ends_with_the_same_bytes(inputs, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("mixbit.training.fit.Keeping.__init__.__defaults__", (0.0, 1e9))

    def stop(done, total, note):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(float_model, inputs, tmp_path, TRAIN, progress=stop)
    steps = []
    assert run(float_model, inputs, tmp_path, TRAIN, progress=lambda done, *_: steps.append(done))[0] == trained[0]
    assert steps[0] == 8


def test_a_checkpoint_is_taken_as_it_is(inputs, tmp_path):
    model = build_model(MODEL["factory"], MODEL["arguments"], (), seed=7)
    save_file(model.state_dict(), tmp_path / "checkpoint_file")
    with_checkpoint = {**inputs, "checkpoint": tmp_path / "checkpoint_file"}
    files, _ = run(float_model, with_checkpoint, tmp_path / "stage", {})
    assert torch.equal(load(files["float_model.safetensors"])["conv.weight"], model.conv.weight)


def test_a_model_with_too_few_classes_is_refused(inputs, tmp_path):
    params = float_model.Params(factory=MODEL["factory"], arguments={"num_classes": 2, "in_channels": 1}, **TRAIN)
    with pytest.raises(MixbitError, match=r"resnet8: .*expected \[1, 3\], got \[1, 2\]"):
        float_model.compute(make_work(inputs, tmp_path), params)


def test_divergence_is_told_and_writes_no_output(inputs, tmp_path):
    wild = {"train": {"epochs": 6, "batch_size": 16, "learning_rate": 1e30}}
    with pytest.raises(MixbitError, match=r"epoch \d of 6, step .*Try lower rates"):
        run(float_model, inputs, tmp_path, wild)
    assert not list((tmp_path / "out").iterdir())


def test_a_users_task_trains_and_is_part_of_the_closure(inputs, tmp_path):
    code = (
        "import torch\n"
        "def loss(o, t): return ((o - torch.nn.functional.one_hot(t, 3)) ** 2).mean()\n"
        "def metric(o, t): return (o.argmax(1) != t).float()\n"
    )
    (tmp_path / "my_task_b.py").write_text(code)
    task = {"loss": "my_task_b:loss", "metric": "my_task_b:metric", "direction": "minimize"}
    params = {**TRAIN, "task": task}
    assert float_model.modules(float_model.Params(**MODEL, **params)).count("my_task_b") == 2
    _, figures = run(float_model, inputs, tmp_path / "stage", params, search_path=(tmp_path,))
    assert figures["val_metric"] < 0.2


@pytest.mark.gpu
def test_training_on_cuda_gives_the_same_bytes_twice(inputs, tmp_path):
    params = {**TRAIN, "device": "cuda"}
    first, figures = run(float_model, inputs, tmp_path / "a", params)
    assert figures["val_metric"] > 0.9
    assert run(float_model, inputs, tmp_path / "b", params)[0] == first

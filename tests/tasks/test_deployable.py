import hashlib
import json

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from mixbit.devices.onnx_file import read_metadata
from mixbit.errors import MixbitError
from mixbit.export.packed import lower_packed
from mixbit.models.build import build_model
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized, save_quantized
from mixbit.policy import canonical_json, dump_policy, policy_sha256
from tasks import deployable
from tasks.stage import Work

FACTORY, ARGUMENTS = "mixbit.models.resnet:resnet8", {"num_classes": 4, "in_channels": 1, "width": 4}
SHAPE = (1, 8, 8)
FIGURES = ("test_metric_simulated", "test_metric_deployed", "test_loss_simulated", "test_loss_deployed")


def make_inputs(folder, entry):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 17, (60, *SHAPE), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 4, (60,), generator=generator)
    splits = {f"{split}_{kind}": value for split in ("train", "val", "test") for kind, value in (("x", x), ("y", y))}
    save_file({name: tensor.clone() for name, tensor in splits.items()}, folder / "dataset")
    info = {"input_shape": list(SHAPE), "num_classes": 4, "labels": ["0", "1", "2", "3"], "dtype": "uint8"}
    info |= {"mean": [8.0], "std": [5.0], "counts": dict.fromkeys(("train", "val", "test"), 60), "md5": None}
    model = build_model(FACTORY, ARGUMENTS, (), seed=0).eval()
    layers = describe_layers(model, SHAPE)
    policy = {layer["name"]: entry for layer in layers["layers"]}
    quantized = build_quantized(model, layers, policy, (x.float() - 8) / 5)
    save_file(save_quantized(quantized), folder / "finetuned_model")
    (folder / "info").write_bytes(canonical_json(info))
    (folder / "layers").write_bytes(canonical_json(layers))
    (folder / "policy").write_bytes(dump_policy(policy))
    return {path.name: path for path in folder.iterdir()}, policy


def make_work(inputs, out):
    out.mkdir()
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in inputs.items()}
    return Work(inputs, digests, out, out, lambda done, total, note: None, out, ())


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    inputs, policy = make_inputs(folder, (4, 4))
    work = make_work(inputs, tmp_path_factory.mktemp("outputs") / "out")
    return work, policy, deployable.compute(work, deployable.Params(factory=FACTORY, arguments=ARGUMENTS))


def test_writes_its_outputs_and_nothing_else(stage):
    work, _, _ = stage
    assert sorted(path.name for path in work.out.iterdir()) == sorted(deployable.OUTPUTS)


def test_figures_judge_the_file_itself(stage):
    work, _, figures = stage
    assert all(name in figures and f"{name}_se" in figures for name in FIGURES)
    assert figures["top1_agreement"] >= 0.95
    assert figures["test_metric_deployed"] == pytest.approx(figures["test_metric_simulated"], abs=0.05)
    assert figures["file_bytes"] == (work.out / "packed.onnx").stat().st_size


def test_report_names_files_by_digest_and_layers_by_kernel(stage):
    work, policy, _ = stage
    report = json.loads((work.out / "deployable.json").read_bytes())
    packed = (work.out / "packed.onnx").read_bytes()
    assert report["files"]["packed.onnx"]["sha256"] == hashlib.sha256(packed).hexdigest()
    assert report["policy_sha256"] == policy_sha256(policy)
    assert {(layer["executed"], tuple(layer["policy"])) for layer in report["layers"].values()} == {("int8", (4, 4))}
    assert report["not_int8"] == {}
    assert report["checks"]["ref"]["off_tie"] == 0


def test_both_dialects_say_one_policy_and_compute_the_same(stage):
    work, policy, _ = stage
    report = json.loads((work.out / "deployable.json").read_bytes())
    digests = {name: report["files"][f"{name}.onnx"]["sha256"] for name in ("packed", "bytes")}
    assert digests["bytes"] == hashlib.sha256((work.out / "bytes.onnx").read_bytes()).hexdigest() != digests["packed"]
    assert read_metadata(work.out / "bytes.onnx") == read_metadata(work.out / "packed.onnx")
    assert read_metadata(work.out / "bytes.onnx")["policy.sha256"] == policy_sha256(policy)
    assert (report["checks"]["bytes"]["differing_pictures"], report["checks"]["bytes"]["same_class"]) == (0, 1.0)


def test_a_dialect_that_computes_something_else_fails_the_stage(stage, tmp_path, monkeypatch):
    work, _, _ = stage
    params = deployable.Params(factory=FACTORY, arguments=ARGUMENTS)
    monkeypatch.setattr("mixbit.export.bytes.lower_bytes", _without_biases)
    with pytest.raises(
        MixbitError, match=r"bytes.onnx computes something else than packed.onnx for \d+ of 60 pictures"
    ):
        deployable.compute(make_work(dict(work.inputs), tmp_path / "out"), params)


def _without_biases(marked):
    lowered = lower_packed(marked)
    for name, value in lowered.graph.initializers.items():
        if name.endswith(".bias"):
            value.const_value = ir.tensor(0 * value.const_value.numpy(), name=name)
    return lowered


def test_file_tells_its_policy_to_onnxruntime(stage):
    work, policy, _ = stage
    session = onnxruntime.InferenceSession(work.out / "packed.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["mixbit.policy.sha256"] == policy_sha256(policy)
    assert json.loads(metadata["mixbit.inputs"]) == dict(work.digests)


def test_model_of_another_policy_is_refused(stage, tmp_path):
    work, policy, _ = stage
    other = tmp_path / "policy"
    other.write_bytes(dump_policy(dict.fromkeys(policy, ("float", 4))))
    inputs = {**work.inputs, "policy": other}
    with pytest.raises(MixbitError, match="saved network"):
        deployable.compute(make_work(inputs, tmp_path / "out"), deployable.Params(factory=FACTORY, arguments=ARGUMENTS))


def test_layer_that_does_not_run_int8_fails_the_stage_in_one_line_each(stage, tmp_path, monkeypatch):
    work, policy, _ = stage
    monkeypatch.setattr("mixbit.devices.kernels.INT8_KERNELS", ("QGemm",))
    with pytest.raises(MixbitError) as caught:
        deployable.compute(
            make_work(dict(work.inputs), tmp_path / "out"), deployable.Params(factory=FACTORY, arguments=ARGUMENTS)
        )
    lines = str(caught.value).splitlines()
    convolutions = [name for name in policy if name != "fc"]
    assert [line.split(":")[0] for line in lines] == convolutions
    assert all("exclude: true" in line for line in lines)
    assert caught.value.exit_code == 1


def test_modules_are_those_that_the_parameters_name():
    task = {"loss": "mine.losses:l1", "metric": "mine.metrics:error", "direction": "minimize"}
    params = deployable.Params(factory="mine.nets:net", task=task)
    assert deployable.modules(params) == ("mine.nets", "mine.losses", "mine.metrics")

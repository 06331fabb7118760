import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from mixbit.errors import MisuseError, MixbitError
from mixbit.export.build import Builder
from mixbit.export.save import describe, to_bytes
from mixbit.policy import canonical_json
from tasks import profile
from tasks.stage import Work

INFO = {"input_shape": [2, 6, 6], "dtype": "uint8", "mean": [0.0] * 2, "std": [1.0] * 2, "labels": []}


def _network(path):
    x = ir.Value(name="input", shape=ir.Shape(["batch", 2, 6, 6]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="output", type=ir.TensorType(ir.DataType.FLOAT))
    build = Builder([x])
    weight = build.constant("conv.weight", np.ones((4, 2, 3, 3), np.float32))
    build.values[y] = build.node("Conv", [build.inputs[0], weight], "y", node_name="conv")
    metadata = describe(policy={"conv": ("float", "float")}, inputs={}, info=INFO)
    path.write_bytes(to_bytes(build.model([y], opset=21, ir_version=10), metadata))
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    (folder / "info").write_bytes(canonical_json(INFO))
    packed = _network(folder / "packed")
    inputs = {"packed": packed, "float_reference": packed, "w8a8_reference": packed, "info": folder / "info"}
    (folder / "out").mkdir()
    return Work(inputs, dict.fromkeys(inputs, "d" * 64), folder / "out", folder, print, folder, ())


def test_profile_holds_ratios_memory_and_executed_bits(work):
    figures = profile.compute(work, profile.Params(block_s=0.001, limit_s=20))
    report = json.loads((work.out / "profile.json").read_bytes())
    assert {"ratio_to_float", "ratio_to_w8a8_p90", "latency_us", "peak_rss_bytes", "contention"} <= set(figures)
    layer = report["layers"]["conv"]
    assert (layer["policy"], layer["executed"], layer["kernel"]) == (["float", "float"], "float", "Conv")
    assert layer["latency_us"] > 0
    assert report["slower_in_int8"] == {}
    assert set(report["clocks"]["before"]) == set(report["clocks"]["after"]) == {
        "frequency_mhz", "temperature_c", "governor"}  # fmt: skip
    assert figures["slowed"] == report["throttling"]["slowed"]
    assert report["fingerprint"]["arch"] == profile.facts(profile.Params())["device.arch"]


def test_a_device_of_another_backend_measures_the_dialect_it_is_given(work, tmp_path):
    inputs = {"bytes" if name == "packed" else name: path for name, path in work.inputs.items()}
    there = replace(work, inputs=inputs, out=tmp_path)
    profile.compute(there, profile.Params(device="local-openvino", block_s=0.001, limit_s=20))
    report = json.loads((tmp_path / "profile.json").read_bytes())
    assert (report["device"], report["dialect"], report["fingerprint"]["backend"]) == (
        "local-openvino", "bytes", "openvino",
    )  # fmt: skip
    assert report["layers"]["conv"]["executed"] == "float"


def test_the_code_of_a_backend_counts_for_its_device_alone():
    assert profile.modules(profile.Params()) == ("mixbit.devices.backends.onnxruntime",)
    assert profile.modules(profile.Params(device="local-openvino")) == ("mixbit.devices.backends.openvino",)


class _Fallen:
    """A device whose runtime computes a layer in float that should be int8."""

    name = "moon"

    def fingerprint(self):
        return {}

    def profile(self, _request):
        float_kernel = {"policy": [4, 4], "executed": "float", "kernel": "Conv", "calls": 1}
        return {"layers": {"a": float_kernel | {"reason": "why"}, "b": {**float_kernel, "executed": "int8"}}}


def test_layer_that_the_device_runs_in_float_fails_the_stage(work, monkeypatch):
    monkeypatch.setattr("mixbit.devices.device.find_device", lambda _name: _Fallen())
    with pytest.raises(MixbitError) as caught:
        profile.compute(work, profile.Params())
    hint = "`layers: {a: {exclude: true}}` in the experiment leaves it float"
    assert str(caught.value) == f"a: its policy is int8, but the device moon computes it in float: why. {hint}"


def test_facts_import_no_runtime():
    script = """
import sys
from tasks import profile
profile.facts(profile.Params())
print("onnxruntime" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_unknown_device_is_refused_before_anything_runs():
    with pytest.raises(MisuseError, match="expected local"):
        profile.facts(profile.Params(device="moon"))

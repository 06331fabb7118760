"""The backend for real: networks of the `bytes` dialect on this machine's OpenVINO."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mixbit.devices.backends import openvino
from mixbit.devices.device import find_device, request_for
from mixbit.devices.executed import not_int8
from mixbit.devices.kernel_times import kernel_times
from mixbit.devices.layer_times import layer_times
from mixbit.devices.onnx_file import read_metadata
from mixbit.errors import MixbitError
from mixbit.export.bytes import lower_bytes
from mixbit.export.end_to_end import DeployedModel
from mixbit.export.save import describe, to_bytes
from tests.mixbit.export.conftest import WIDTHS, make_case
from tests.mixbit.export.test_user_networks import WIDTHS as USER_WIDTHS
from tests.mixbit.models.user_networks import NETWORKS, SHAPE


class Chain(nn.Module):
    """A convolution that is called twice, then Linear layers that OpenVINO may join in one kernel."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.first, self.second, self.last = nn.Linear(128, 64), nn.Linear(64, 48), nn.Linear(48, 10)

    def forward(self, x):
        x = self.twice(self.twice(x).relu()).relu()
        return self.last(self.second(self.first(torch.flatten(x, 1)).relu()).relu())


def write(path, case, shape, policy=None):
    info = {"input_shape": shape, "dtype": "float32", "mean": [0.0] * shape[0], "std": [1.0] * shape[0], "labels": []}
    metadata = describe(policy=policy or case.policy, inputs={}, info=info)
    path.write_bytes(to_bytes(lower_bytes(case.marked), metadata))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> (case, file): `mixed` and `float` of the small network, `chain` and `chain_float`."""
    folder, shapes = tmp_path_factory.mktemp("files"), {"small": [3, 9, 9], "chain": [8, 4, 4]}
    float_only = [("float", "float")]
    cases = {
        "mixed": (make_case(WIDTHS), shapes["small"]),
        "float": (make_case(float_only), shapes["small"]),
        "chain": (make_case([(4, 4)], (8, 4, 4), Chain()), shapes["chain"]),
        "chain_float": (make_case(float_only, (8, 4, 4), Chain()), shapes["chain"]),
    }
    return {name: (case, write(folder / f"{name}.onnx", case, shape)) for name, (case, shape) in cases.items()}


def executed(files, name):
    case, path = files[name]
    return openvino.executed(path, case.policy, threads=1)


def test_every_layer_of_2_to_8_bits_runs_int8(files):
    kernels = executed(files, "mixed")
    assert {kernel.executed for kernel in kernels.values()} == {"int8"}
    assert not_int8(kernels) == {}


def test_a_float_network_runs_in_float_and_not_in_bf16(files):
    assert {kernel.executed for kernel in executed(files, "float").values()} == {"float"}


def test_it_computes_what_onnx_runtime_computes_from_the_packed_file(files):
    case, path = files["mixed"]
    output = openvino.open_file(path, threads=1, shape=case.x.shape).run(case.x.numpy())
    packed = DeployedModel(case.packed, threads=1)(case.x).numpy()
    assert (output.argmax(1) == packed.argmax(1)).mean() >= 0.98
    assert np.median(np.abs(output - packed)) < 1e-5


def test_both_calls_of_a_layer_run_int8(files):
    kernel = executed(files, "chain")["twice"]
    assert (kernel.executed, kernel.calls) == ("int8", 2)


def test_layers_joined_in_one_kernel_keep_their_own_precision(files, tmp_path):
    float_first = [(8, 8), ("float", "float"), (8, 8), (8, 8)]
    case = make_case(float_first, (8, 4, 4), Chain())
    kernels = openvino.executed(write(tmp_path / "x.onnx", case, [8, 4, 4]), case.policy, threads=1)
    expected = {name: "float" if "float" in entry else "int8" for name, entry in case.policy.items()}
    assert {name: kernel.executed for name, kernel in kernels.items()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_as_users_write_them_run_int8_and_choose_the_classes_of_packed(name, tmp_path):
    case = make_case(USER_WIDTHS, SHAPE, NETWORKS[name]())
    path = write(tmp_path / "x.onnx", case, list(SHAPE))
    assert {kernel.executed for kernel in openvino.executed(path, case.policy, threads=1).values()} == {"int8"}
    output = openvino.open_file(path, threads=1, shape=case.x.shape).run(case.x.numpy())
    packed = DeployedModel(case.packed, threads=1)(case.x).numpy()
    assert (output.argmax(1) == packed.argmax(1)).mean() >= 0.98


def test_a_layer_that_should_be_int8_and_is_not_has_a_reason(files, tmp_path):
    case, _ = files["float"]
    policy = dict.fromkeys(case.policy, (8, 8))
    path = write(tmp_path / "x.onnx", case, [3, 9, 9], policy)
    reasons = not_int8(openvino.executed(path, policy, threads=1))
    assert set(reasons) == set(policy)
    assert "reads f32 of" in reasons["stem"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 instruction sets")
def test_without_vnni_it_still_runs_and_names_int8_kernels(files):
    script = "import json, sys; from mixbit.devices.device import find_device\n"
    script += "print(json.dumps(find_device('local-openvino').executed(sys.argv[1], 1)))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", script, str(files["mixed"][1])]
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert (found["stem"]["executed"], found["stem"]["kernel"]) == ("int8", "jit_avx2_I8")


def test_layers_are_timed_beside_their_float_selves_and_depthwise_ones_are_told(files):
    paths = {"model": files["mixed"][1], "float": files["float"][1]}
    found = layer_times(request_for(paths, [3, 9, 9], batch_size=16, backend="openvino"))
    assert {"stem", "depthwise", "wide", "tail"} <= set(found["layers"])
    assert {name for name, layer in found["layers"].items() if "depthwise" in layer} == {"depthwise"}
    assert all(layer["ratio_to_float"] > 0 for layer in found["layers"].values())


def test_times_of_joined_layers_stand_at_the_first_of_them(files):
    paths = dict.fromkeys(("model", "float"), files["chain"][1])
    request = request_for(paths, [8, 4, 4], batch_size=64, backend="openvino", limit_s=1)
    times = kernel_times(request)["model"]
    assert times["first"] > 0
    assert set(times) == set(read_metadata(files["chain"][1])["policy"])


def test_a_whole_profile_says_ratios_memory_and_executed_bits(files):
    path = files["mixed"][1]
    models = {"model": path, "float": files["float"][1], "w8a8": path}
    found = find_device("local-openvino").profile(request_for(models, [3, 9, 9], block_s=0.001, limit_s=20.0))
    assert found["ratios"]["w8a8"]["median"] == pytest.approx(1, abs=0.4)
    assert found["peak_rss_bytes"]["model"] >= 0
    assert {layer["executed"] for layer in found["layers"].values()} == {"int8"}
    json.dumps(found, allow_nan=False)


def test_a_file_that_it_refuses_is_one_line(files, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(files["mixed"][1].read_bytes()[:-40])
    with pytest.raises(MixbitError, match="OpenVINO refuses it") as caught:
        openvino.open_file(broken, threads=1, shape=(1, 3, 9, 9))
    assert "\n" not in str(caught.value)


def test_its_telemetry_is_never_imported(tmp_path):
    """A stand-in that would leave a trace; the package itself reports every import of openvino."""
    stand_in = tmp_path / "openvino_telemetry"
    stand_in.mkdir()
    (stand_in / "__init__.py").write_text(f"open({str(tmp_path / 'asked')!r}, 'w').close()\nTelemetry = object\n")
    script = "from mixbit.devices.backends import openvino; openvino.load().Core()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert not (tmp_path / "asked").exists()

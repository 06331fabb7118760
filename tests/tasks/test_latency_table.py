"""Stage `latency_table`, on a device whose times are made by hand."""

import itertools
import json
from pathlib import Path

import pytest

from mixbit.devices.onnx_file import read_metadata, read_opset
from mixbit.models.build import build_model
from mixbit.models.graph import describe_layers
from mixbit.policy import canonical_json, is_float, parse_policy
from tasks import latency_table
from tasks.stage import Work

NETWORK = """
from torch import nn
def net():
    layers = []
    for _ in range(5):
        layers += [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)
"""
INFO = {"input_shape": [2, 6, 6], "dtype": "float32", "mean": [0.0] * 2, "std": [1.0] * 2, "labels": []}
KERNEL_US = {"float": 12.0, "int8": 4.0}


def _executed(path):
    policy = parse_policy(read_metadata(Path(path))["policy"], path)
    return [("float" if is_float(entry) else "int8") for entry in policy.values()]


class _Device:
    """Kernels as above, 3 us for a change to int8 and 4 us for one back, 2 us for everything; what it has seen."""

    name = "moon"

    def __init__(self):
        self.most_at_once, self.measured, self.profiles, self.pace = 0, [], 0, 0.0

    def fingerprint(self):
        return {"arch": "moon"}

    def kernel_times(self, request):
        names = [str(2 * i) for i in range(5)]
        self.profiles += 1
        slow = {"float": 100.0 if self.profiles == 1 else 1.0, "int8": 1.0}  # one bad profile
        return {
            m: {name: slow[kind] * KERNEL_US[kind] for name, kind in zip(names, _executed(p), strict=True)}
            for m, p in request.models.items()
        }

    def compare(self, request):
        self.most_at_once = max(self.most_at_once, len(request.models))
        self.measured += [Path(path) for path in request.models.values()]
        times = {name: self._us(_executed(path)) for name, path in request.models.items()}
        models = {n: {"latency_us": us, "ratio_to_float": {"median": us / times["float"]}} for n, us in times.items()}
        self.pace += 0.01
        pace = {"slowed": self.pace, "alarm": self.pace > 0.02}
        return {"models": models, "contention": {"alarm": False, "median": 1.0, "p90": 1.0}, "throttling": pace}

    def executed(self, path, threads):
        return {"0": {"executed": "int8"}}

    def _us(self, kinds):
        changes = [3 if a == "float" else 4 for a, b in itertools.pairwise(kinds) if a != b]
        return 2 + sum(map(KERNEL_US.get, kinds)) + sum(changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(figures, table, device)"""
    folder = tmp_path_factory.mktemp("table")
    (folder / "chain.py").write_text(NETWORK)
    layers = describe_layers(build_model("chain:net", {}, (folder,), seed=0), INFO["input_shape"])
    inputs = {"layers": layers, "info": INFO}
    for name, content in inputs.items():
        (folder / name).write_bytes(canonical_json(content))
    work = Work({name: folder / name for name in inputs}, {}, folder, folder, lambda *_: None, folder, (folder,))
    device = _Device()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixbit.devices.device.find_device", lambda _name: device)
        figures = latency_table.compute(work, latency_table.Params(factory="chain:net", calibration=10, held_out=4))
    return figures, json.loads((folder / "latency_table.json").read_bytes()), device


def test_kernels_boundaries_and_the_offset_are_found(made):
    _, table, _ = made
    assert table["layers"]["0"] == pytest.approx({"float": 12, "int8": 4}, abs=1e-2)
    assert [row["float_int8_us"] for row in table["boundaries"]] == pytest.approx([3] * 4, abs=1e-2)
    assert [row["int8_float_us"] for row in table["boundaries"]] == pytest.approx([4] * 4, abs=1e-2)
    assert table["offset_us"] == pytest.approx(2, abs=1e-2)
    assert table["reference_us"] == {"float": 62.0, "w8a8": 22.0}


def test_it_is_judged_by_policies_that_it_was_not_fitted_to(made):
    figures, table, _ = made
    assert figures["error"] == table["error"] < 1e-3
    assert figures["held_out"] == 4
    assert figures["throttling_alarm"] == table["throttling"]["alarm"] == 1.0
    assert len(table["policies"]) == 16


def test_few_files_lie_on_the_disk_at_once_and_none_at_the_end(made):
    device = made[2]
    assert device.most_at_once == latency_table.TOGETHER + 1
    assert not any(path.exists() for path in device.measured)


def test_files_for_an_old_runtime_are_of_the_dialect_that_it_loads(made, tmp_path, monkeypatch):
    _, _, device = made
    monkeypatch.setattr("mixbit.devices.device.find_device", lambda _name: device)
    monkeypatch.setattr(device, "fingerprint", lambda: {"onnxruntime": "1.19.2"})
    (tmp_path / "chain.py").write_text(NETWORK)
    layers = describe_layers(build_model("chain:net", {}, (tmp_path,), seed=0), INFO["input_shape"])
    work = Work({}, {}, tmp_path, tmp_path, lambda *_: None, tmp_path, (tmp_path,))
    variants = latency_table._variants(work, latency_table.Params(factory="chain:net", device="moon"), layers, INFO)
    assert read_opset(variants.file(variants.policy)) == 18


def test_a_network_of_few_layers_keeps_its_share_of_policies_to_judge_by():
    policies = {name: dict.fromkeys("ab", ("float", "float")) for name in ("float", "w8a8", *map(str, range(14)))}
    kernels, times = dict.fromkeys("ab", KERNEL_US), {name: 24.0 + i for i, name in enumerate(policies)}
    params = latency_table.Params(factory="chain:net", calibration=24, held_out=8)
    rows = latency_table._table(kernels, {}, policies, times, params)["policies"]
    assert [row["held_out"] for row in rows] == [False] * 13 + [True] * 3

import json

import pytest

from mixbit.devices import measure
from mixbit.devices.compare import compare
from mixbit.devices.device import Request, find_device, request_for
from mixbit.devices.measure import Block


def test_a_latency_is_the_ratio_within_rounds_times_floats_own(monkeypatch):
    # The machine gets slower by half in the second round: the ratio does not.
    rounds = [{"float": Block(s, s), "x": Block(s / 4, s / 4)} for s in (1e-3, 1.5e-3, 1e-3)]
    monkeypatch.setattr(measure, "bound_call", lambda *_: lambda: None)
    monkeypatch.setattr(measure, "run_rounds", lambda *_: rounds)
    found = compare(Request({"float": "f", "x": "x"}, (1, 2, 2)))["models"]
    assert found["x"]["latency_us"] == pytest.approx(250)
    assert found["x"]["ratio_to_float"] == pytest.approx({"median": 0.25, "p10": 0.25, "p90": 0.25})


def test_files_are_compared_by_any_names_in_one_run(convolution):
    files = {"float": convolution, "0": convolution, "w8a8": convolution}
    found = find_device("local").compare(request_for(files, [3, 8, 8], block_s=0.001, limit_s=20))
    assert set(found["models"]) == set(files)
    assert found["models"]["float"]["ratio_to_float"]["median"] == 1.0
    json.dumps(found, allow_nan=False)


def test_executed_bits_of_a_file_are_told_without_a_measurement(convolution):
    found = find_device("local").executed(str(convolution), 1)
    assert found["conv"] == {"policy": ("float", "float"), "executed": "float", "kernel": "Conv", "calls": 1}

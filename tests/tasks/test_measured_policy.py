"""Stage `measured_policy`: what a device decides, with times made by hand."""

import json

import pytest

from mixbit.errors import MixbitError
from mixbit.policy import load_policy
from tasks import measured_policy
from tasks.stage import Work

COSTS = {"bitops": 1, "size_bits": 1, "file_bytes": 1}
BITS = {"least harmful": "float", "middle": 8, "fastest": 2}
HARMS = {"least harmful": 0.0, "middle": 1.0, "fastest": 5.0}


def _candidate(kind):
    policy = {"conv": {"weight_bits": BITS[kind], "activation_bits": BITS[kind]}}
    means = {"mean_weight_bits": 8.0, "mean_activation_bits": 8.0, "costs": COSTS}
    return {"kind": kind, "harm": HARMS[kind], "policy": policy, "predicted_us": {"local": 70.0}, **means}


class _Device:
    """A device on which float takes 100 us, W8A8 50 us."""

    def __init__(self, *times_us):
        self.times_us = {"float": 100.0, "w8a8": 50.0} | {str(i): us for i, us in enumerate(times_us)}

    def fingerprint(self):
        return {"arch": "moon"}

    def compare(self, request):
        spread = dict.fromkeys(("median", "p10", "p90"), 1.0)
        models = {name: {"latency_us": self.times_us[name], "ratio_to_float": spread} for name in request.models}
        return {"models": models, "contention": {"alarm": False}, "throttling": {"slowed": 0.0, "alarm": False}}


@pytest.fixture
def decide(tmp_path, monkeypatch):
    def run(limit, *times_us):
        device = _Device(*times_us)
        monkeypatch.setattr("mixbit.devices.device.find_device", lambda _name: device)
        files = {name: tmp_path / name for name in ("float", "w8a8", *map(str, range(len(BITS))))}
        monkeypatch.setattr(measured_policy, "_files", lambda *_: files)
        choice = {"candidates": [_candidate(kind) for kind in BITS], "requested": {}, "status": "optimal"}
        inputs = {"choice": choice, "layers": {}, "info": {"input_shape": [1, 2, 2]}}
        for name, content in inputs.items():
            (tmp_path / name).write_text(json.dumps(content))
        out = tmp_path / "out"
        out.mkdir()
        work = Work({n: tmp_path / n for n in inputs}, {}, out, tmp_path, lambda *_: None, tmp_path, ())
        params = measured_policy.Params(factory="net:net", budget={"latency[local]": limit})
        figures = measured_policy.compute(work, params)
        policy = load_policy((out / "policy.json").read_bytes(), "policy")
        return figures, policy["conv"][0], json.loads((out / "choice.json").read_text())

    return run


@pytest.mark.parametrize(
    ("limit", "times_us", "bits"),
    [
        ("95 us", (94, 80, 60), "float"),  # the table was wrong by a third, and the device decides
        ("0.9x float", (94, 80, 60), 8),
        ("1.3x w8a8", (94, 80, 60), 2),
        ("0.09 ms", (94, 91, 90), 2),
    ],
)
def test_the_least_harmful_policy_that_measures_within_the_limit_is_taken(decide, limit, times_us, bits):
    assert decide(limit, *times_us)[1] == bits


def test_predicted_and_measured_are_both_kept_for_every_candidate(decide):
    figures, _, choice = decide("0.9x float", 94, 80, 60)
    assert (figures["predicted_us.local"], figures["measured_us.local"]) == (70.0, 80.0)
    assert [one["measured"]["local"]["latency_us"] for one in choice["candidates"]] == [94, 80, 60]
    assert (choice["kind"], choice["measuring"]["limits_us"]) == ("middle", {"local": 90.0})


def test_an_unreachable_limit_tells_what_the_fastest_candidate_reaches(decide):
    with pytest.raises(MixbitError) as caught:
        decide("0.5x float", 94, 80, 60)
    said = "no policy keeps latency[local] 0.5x float, got the fastest on local: 60 us measured (70 us predicted)"
    assert f"{said}, limit 50 us" in str(caught.value)


def test_the_fingerprint_of_every_limited_device_is_a_fact(monkeypatch):
    monkeypatch.setattr("mixbit.devices.device.find_device", lambda _name: _Device())
    params = measured_policy.Params(factory="n:n", budget={"latency[b]": "1 ms", "latency[a]": "1 ms"})
    assert measured_policy.facts(params) == {"device.a.arch": "moon", "device.b.arch": "moon"}


def test_the_dialect_that_was_measured_is_told(decide):
    assert decide("0.9x float", 94, 80, 60)[2]["measuring"]["dialects"] == {"local": "packed"}

"""Latency in the budget, from the table to the policy that the device chose. No time is asserted: machines are busy."""

import json
import re

import pytest

from tests.flows.conftest import make_tiny

# So generous that the least harmful policy, every free layer float, keeps it on any machine.
GENEROUS = "budgets:\n  fast:\n    latency[local]: 50x float\n    latency[simulated:bitops]: 1 s\n    size_bits: 1x\n"


@pytest.fixture(scope="module")
def timed(tmp_path_factory, urls):
    """(the experiment, its first run) with a latency in its budget."""
    tiny = make_tiny(tmp_path_factory.mktemp("timed") / "tiny", **urls)
    tiny.edit("budgets:\n  w4a4: {bitops: w4a4}\n", GENEROUS)
    tiny.edit("num_bits: [2, 4, 8]", "num_bits: [4, 8, float]")
    return tiny, tiny.run()


def _output(tiny, cell, file):
    """What the last run made in a cell."""
    record = json.loads((tiny.state / "latest" / "tiny" / f"{cell.replace(' ', '@')}.json").read_bytes())
    sha256 = record["outputs"][file]["sha256"]
    return json.loads((tiny.state / "blobs" / sha256[:2] / sha256).read_bytes())


def test_a_table_is_made_before_the_search_and_all_of_it_is_cached(timed):
    tiny, first = timed
    cells = list(tiny.plan())
    order = [cells.index(cell) for cell in ("layers", "latency_table local", "policy fast", "measured_policy fast")]
    assert order == sorted(order)
    assert "latency_table local: done in" in first.stdout
    assert tiny.computed() == []


def test_the_table_says_what_it_was_fitted_to_and_how_far_it_is_off(timed):
    table = _output(timed[0], "latency_table local", "latency_table.json")
    assert {"float", "w8a8"} == set(table["reference_us"])
    assert all(set(row) == {"float", "int8"} for row in table["layers"].values())
    assert any(row["held_out"] for row in table["policies"])
    assert table["error"] == table["calibration"]["error"] >= 0
    assert {row["executed"] for row in table["executed"].values()} == {"int8"}


def test_every_candidate_is_measured_and_the_least_harmful_within_the_limit_is_taken(timed):
    choice = _output(timed[0], "measured_policy fast", "choice.json")
    candidates = choice["candidates"]
    assert all(one["measured"]["local"]["latency_us"] > 0 < one["predicted_us"]["local"] for one in candidates)
    assert choice["harm"] == min(one["harm"] for one in candidates) == 0.0
    assert choice["measured"]["local"]["latency_us"] <= choice["measuring"]["limits_us"]["local"]
    assert choice["executed"] == {"float": 2, "int8": 2}


def test_the_deployed_file_computes_in_float_what_the_policy_says(timed):
    layers = _output(timed[0], "profile fast local", "profile.json")["layers"]
    assert sorted(layer["executed"] for layer in layers.values()) == ["float", "float", "int8", "int8"]


def test_predicted_and_measured_latency_stand_in_the_report(timed):
    page = (timed[0].state / "reports" / "tiny" / "report.html").read_text()
    section = page.partition("Predicted and measured latency")[2]
    assert "latency[local]: 50x float" in page
    assert "best" in section
    assert "chosen" in section


def test_simulated_times_stand_in_the_report_and_nowhere_as_a_devices_figure(timed):
    tiny, _ = timed
    page = (tiny.state / "reports" / "tiny" / "report.html").read_text()
    assert "simulated:roofline" in page.partition("Simulated latency")[2]
    assert "simulated" not in json.dumps(_output(tiny, "profile fast local", "profile.json"))
    assert set(_output(tiny, "measured_policy fast", "choice.json")["predicted_us"]) == {"local"}


def test_a_simulated_latency_alone_needs_neither_table_nor_device(offline_tiny):
    offline_tiny.edit("{bitops: w4a4}", '{"latency[simulated:bitfusion]": 0.5x w8a8}')
    planned = offline_tiny.mixbit("plan", offline_tiny.file)
    assert planned.returncode == 0, planned.stderr
    assert "latency_table" not in planned.stdout


def test_an_unreachable_latency_tells_what_the_fastest_policy_reaches_and_trains_nothing_more(timed, tmp_path):
    tiny, _ = timed
    tiny.edit("50x float", "0.001x float")
    done = tiny.mixbit("run", tiny.file)
    tiny.edit("0.001x float", "50x float")
    assert done.returncode == 1
    assert re.search(r"no policy keeps latency\[local\] 0\.001x float", done.stdout + done.stderr)
    assert re.search(r"\d+ us measured \(\d+ us predicted\), limit \d+ us", done.stdout + done.stderr)
    assert "finetuned_model fast: done" not in done.stdout


def test_a_simulated_model_is_refused_as_a_device(offline_tiny):
    offline_tiny.edit("finetune:", "devices: [simulated:roofline]\nfinetune:")
    done = offline_tiny.mixbit("plan", offline_tiny.file)
    assert done.returncode == 2
    assert "expected a device: a simulated model is none" in done.stderr
    assert "latency[simulated:roofline]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("latency[local]: 8", r"budgets.fast\[\"latency\[local\]\"\]: expected a time such as 8 ms .*, got 8"),
        ("latency[pi5]: 8 ms", r"pi5 is not among devices, expected latency\[local\], got latency\[pi5\]"),
        (
            "latency[simulated:bitfuson]: 8 ms",
            r"expected latency\[simulated:bitfusion\] or .*Did you mean latency\[simulated:bitfusion\]",
        ),
        ("latency: 8 ms", r"not a key here, expected bitops, .* or peak_activation_bytes, or latency\[DEVICE\]"),
    ],
)
def test_a_latency_that_cannot_be_is_refused_before_anything_runs(offline_tiny, limit, said):
    offline_tiny.edit("  w4a4: {bitops: w4a4}", f"  fast:\n    {limit}")
    done = offline_tiny.mixbit("plan", offline_tiny.file)
    assert done.returncode == 2
    assert re.search(said, done.stderr), done.stderr

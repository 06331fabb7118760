"""What `mixbit trace` and `mixbit diff` print."""

import json
import os

import pytest
from click.testing import CliRunner

from flows.trace import Branch, diff, diff_lines, draw, trace
from mixbit.errors import MixbitError
from tasks import experiment_run
from tasks.compare import Change, Difference
from tasks.registration import register
from tests.tasks.lineage_records import log_pipeline

NAME = f"printed{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # workers share one server


@pytest.fixture(scope="module")
def logged(mlflow_url, tmp_path_factory):
    made = log_pipeline(mlflow_url, tmp_path_factory.mktemp("files"), NAME)
    by_stage = {cell.partition(" ")[0]: record for cell, record in made.records.items()}
    register(mlflow_url, NAME, "w4a4", by_stage, {})
    experiment_run.log(mlflow_url, NAME, "w4a4", uses=made.records, cached={}, context={})
    return made


@pytest.fixture
def run(mlflow_url, monkeypatch):
    monkeypatch.setenv("MIXBIT_MLFLOW_URL", mlflow_url)
    return lambda command, *words: CliRunner().invoke(command, words, catch_exceptions=False)


def test_the_tree_leads_from_the_file_to_the_dataset_and_the_device(run, logged):
    lines = run(trace, f"models:/{NAME}-w4a4@champion").output.splitlines()
    assert lines[1:3] == ["packed.onnx", f"sha256 {logged.sha256('deployable w4a4', 'packed.onnx')}"]
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in ("policy  ", "indicators  ", "dataset  ", "source  source 55555555", "latency_us 804", "@champion"):
        assert words in text
    assert f"experiment run  {NAME} w4a4" in text


def test_what_was_shown_once_is_only_named_again(run, logged):
    output = run(trace, logged.run_id("deployable w4a4")).output
    assert output.count("source  source 55555555") == 1
    assert output.count("(above)") > 3


def test_verify_says_how_much_was_checked(run, logged):
    assert "verified 9 files" in run(trace, "--verify", logged.run_id("deployable w4a4")).output


def test_json_holds_both_directions(run, logged):
    found = json.loads(run(trace, "--json", logged.sha256("policy w4a4", "policy.json")).output)
    assert found["run_id"] == logged.run_id("policy w4a4")
    assert {one["stage"] for one in found["made_from"]} == {"policy", "indicators", "layers", "float_model", "dataset"}
    assert [one["stage"] for one in found["used_by"]] == ["finetuned_model", "deployable", "profile"]
    assert found["registered"][0]["aliases"] == ["candidate", "champion"]


def test_diff_prints_bits_inputs_and_figures(run, logged, mlflow_url, tmp_path):
    log_pipeline(mlflow_url, tmp_path, NAME, conv2=8, alpha=2.0, accuracy=0.98)
    other = log_pipeline(mlflow_url, tmp_path, NAME, conv2=8, alpha=2.0, accuracy=0.98)
    ids = logged.run_id("deployable w4a4"), other.run_id("deployable w4a4")
    lines = run(diff, *ids).output.splitlines()
    assert lines[1:4] == [f"  {NAME}.conv2  weight_bits 4 → 8", "policy", "  params.alpha 1 → 2"]
    assert "  deployable.test_metric_deployed  0.97 → 0.98  (+0.01)" in lines
    found = json.loads(run(diff, "--json", *ids).output)
    assert found["bits"] == {f"{NAME}.conv2": {"weight_bits": [4, 8]}}


def test_diff_says_what_changed_in_several_stages_once():
    fit, alpha = "mixbit/training/fit.py: fit_", {"alpha": (1.0, 2.0)}
    trained = Change((fit,), {}, {"torch": ("2.12", "2.13")}, {})
    stages = {"float_model": trained, "policy": Change((), alpha, {}, {}), "finetuned_model": trained}
    assert diff_lines(Difference((None, None), {}, stages, {})) == [
        *("float_model, finetuned_model", f"  {fit}", "  torch 2.12 → 2.13", "policy", "  params.alpha 1 → 2")
    ]


def test_diff_of_the_same_thing_says_so(run, logged):
    assert run(diff, *[logged.run_id("policy w4a4")] * 2).output == "no difference\n"


def test_without_a_server_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path))
    with pytest.raises(MixbitError, match=r"no tracking server runs. Start it with `mixbit up`"):
        CliRunner().invoke(trace, ["f" * 64], catch_exceptions=False)


def test_long_lines_wrap_inside_the_tree():
    words = ", ".join(f"figure{number} 0.123" for number in range(9))
    lines = draw(Branch("root", (Branch(words, (Branch(words),)), Branch("last"))))
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "└── last"
    assert lines[2].startswith("│   │   ")

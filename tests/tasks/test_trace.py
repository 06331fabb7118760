"""Lineage and differences, against a real MLflow server."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from flows.trace import trace_lines
from mixbit.errors import MisuseError, MixbitError
from tasks import experiment_run, tracking, tracking_rest
from tasks.compare import compare
from tasks.record import Adopted
from tasks.registration import register
from tasks.trace import trace, verify
from tasks.tracking_rest import ArtifactLost
from tests.tasks.lineage_records import MD5, log_pipeline

NAME = f"trace{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # workers share one server
ANCESTRY = ["dataset", "deployable", "finetuned_model", "float_model", "indicators", "layers", "policy"]


@pytest.fixture(scope="module")
def logged(mlflow_url, tmp_path_factory):
    made = log_pipeline(mlflow_url, tmp_path_factory.mktemp("files"), NAME)
    by_stage = {cell.partition(" ")[0]: record for cell, record in made.records.items()}
    register(mlflow_url, NAME, "w4a4", by_stage, {})
    experiment_run.log(mlflow_url, NAME, "w4a4", uses=made.records, cached={}, context={})
    return made


@pytest.fixture(scope="module")
def other(mlflow_url, logged, tmp_path_factory):
    """The same pipeline after a change of solver, alpha and hence of one layer's bits."""
    files = tmp_path_factory.mktemp("files")
    return log_pipeline(mlflow_url, files, NAME, conv2=8, alpha=2.0, solver="2", accuracy=0.98)


def deployed(logged):
    return logged.files[logged.sha256("deployable w4a4", "packed.onnx")]


def stages(runs):
    return sorted(run.tags["mixbit.stage"] for run in runs)


def test_a_copied_and_renamed_file_is_traced_to_the_dataset_and_the_device(mlflow_url, logged, tmp_path):
    copy = tmp_path / "model-on-the-phone.bin"
    shutil.copy(deployed(logged), copy)
    found = trace(mlflow_url, str(copy))
    assert found.subject.run.run_id == logged.run_id("deployable w4a4")
    assert stages(found.made_from.runs.values()) == ANCESTRY
    assert [(run.tags["device"], run.metrics["latency_us"]) for run in found.used_by] == [("pi5", 804.0)]
    assert [(str(version), aliases) for version, aliases in found.versions] == [
        (f"models:/{NAME}-w4a4/1", ["candidate", "champion"])
    ]
    assert [run.name for run in found.experiment_runs] == ["w4a4"]


def test_a_source_is_the_end_of_the_line(mlflow_url, logged):
    found = trace(mlflow_url, logged.run_id("dataset"))
    edge = found.made_from.edges[logged.run_id("dataset")][0]
    assert (edge.name, edge.sha256, edge.artifact, edge.maker) == ("source", "5" * 64, "source", None)


def test_a_file_altered_by_one_byte_is_unknown(mlflow_url, logged, tmp_path):
    content = bytearray(deployed(logged).read_bytes())
    content[3] ^= 1
    (tmp_path / "packed.onnx").write_bytes(content)
    with pytest.raises(MixbitError, match=r"unknown.*altered after it was made") as caught:
        trace(mlflow_url, str(tmp_path / "packed.onnx"))
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reference", ["/1", "@champion"])
def test_a_registered_model_is_traced(mlflow_url, logged, reference):
    assert trace(mlflow_url, f"models:/{NAME}-w4a4{reference}").subject.run.run_id == logged.run_id("deployable w4a4")


@pytest.mark.parametrize("digits", [64, 8])
def test_a_policy_is_found_by_its_name_and_shows_what_it_produced(mlflow_url, logged, digits):
    found = trace(mlflow_url, logged.sha256("policy w4a4", "policy.json")[:digits])
    assert found.subject.run.run_id == logged.run_id("policy w4a4")
    assert stages(found.used_by) == ["deployable", "finetuned_model", "profile"]
    assert [str(version) for version, _ in found.versions] == [f"models:/{NAME}-w4a4/1"]


@pytest.mark.parametrize("cell", ["indicators", "deployable w4a4"])
def test_a_run_and_a_stage_key_are_traced(mlflow_url, logged, cell):
    assert trace(mlflow_url, logged.run_id(cell)).subject.run.run_id == logged.run_id(cell)
    assert trace(mlflow_url, logged.records[cell].key).subject.run.run_id == logged.run_id(cell)


def test_everything_that_an_indicator_run_produced(mlflow_url, logged):
    assert {"policy", "finetuned_model", "deployable", "profile"} <= set(
        stages(trace(mlflow_url, logged.run_id("indicators")).used_by)
    )


@pytest.mark.parametrize("name", [MD5, "5" * 64])
def test_source_data_are_found_by_md5_and_sha256(mlflow_url, logged, name):
    assert {"layers", "indicators", "profile"} <= set(stages(trace(mlflow_url, name).used_by))


def test_an_experiment_run_is_traced_through_what_it_uses(mlflow_url, logged):
    run_id = trace(mlflow_url, logged.run_id("dataset")).experiment_runs[0].run_id
    found = trace(mlflow_url, run_id)
    assert found.roots == [logged.run_id("profile w4a4 pi5")]
    assert stages(found.made_from.runs.values()) == sorted([*ANCESTRY, "profile"])


def test_a_prefix_of_several_digests_asks_for_more(mlflow_url, tmp_path, logged):
    from tasks.trace import _only_one

    with pytest.raises(MixbitError, match="Give more digits"):
        _only_one("abcdef01", ["abcdef0123", "abcdef0145"])


@pytest.mark.parametrize("what", ["f" * 64, "f" * 32, "f" * 8])
def test_an_unknown_digest_is_one_line(mlflow_url, what):
    with pytest.raises(MixbitError, match=r"knows no artifact, stage key or run"):
        trace(mlflow_url, what)


@pytest.mark.parametrize("what", ["nothing", "abc", "models:/x", "tests"])
def test_what_cannot_be_traced_is_misuse(mlflow_url, what):
    with pytest.raises(MisuseError, match="expected"):
        trace(mlflow_url, what)


def test_a_run_that_mixbit_did_not_log_is_refused(mlflow_url):
    body = {"experiment_id": "0", "run_name": "foreign"}
    run_id = tracking_rest.post(mlflow_url, "runs/create", body)["run"]["info"]["run_id"]
    with pytest.raises(MixbitError, match="a run that mixbit did not log"):
        trace(mlflow_url, run_id)


def test_bytes_on_the_server_are_verified(mlflow_url, logged):
    found = trace(mlflow_url, logged.run_id("deployable w4a4"))
    files, size_bytes = verify(mlflow_url, found.made_from.runs.values())
    assert files == 8
    assert size_bytes == sum(
        one.size_bytes
        for cell, record in logged.records.items()
        if "profile" not in cell
        for one in record.outputs.values()
    )


def test_altered_bytes_on_the_server_are_found(mlflow_url, tmp_path):
    made = log_pipeline(mlflow_url, tmp_path, "altered")
    found = trace(mlflow_url, made.run_id("layers"))
    run = found.made_from.runs[made.run_id("layers")]
    (tmp_path / "other").write_bytes(b"other")
    path = f"{tracking_rest.artifact_path(mlflow_url, run.artifacts)}/layers.json"
    with pytest.raises(MixbitError, match="altered while"):
        tracking_rest.upload(mlflow_url, path, tmp_path / "other", "0" * 64)
    with pytest.raises(ArtifactLost, match=r"layers.json is altered"):
        verify(mlflow_url, found.made_from.runs.values())


def test_runs_that_made_the_same_bytes_are_named(mlflow_url, tmp_path):
    first = log_pipeline(mlflow_url, tmp_path, "twins", solver="1")
    second = log_pipeline(mlflow_url, tmp_path, "twins", solver="2")
    twins = trace(mlflow_url, first.run_id("deployable w4a4")).made_from.twins
    assert twins[first.run_id("policy w4a4")] == [second.run_id("policy w4a4")]


def test_a_difference_names_bits_inputs_and_figures(mlflow_url, logged, other):
    found = compare(mlflow_url, logged.run_id("deployable w4a4"), other.run_id("deployable w4a4"))
    assert found.bits == {f"{NAME}.conv2": {"weight_bits": (4, 8)}}
    assert found.stages["policy"].code == ("policies/ilp.py: solve",)
    assert found.stages["policy"].params == {"alpha": (1.0, 2.0)}
    assert list(found.stages) == ["policy"]
    assert found.figures["deployable.test_metric_deployed"] == (0.97, 0.98)
    assert found.figures["profile.pi5.latency_us"] == (804.0, 808.0)
    json.dumps(found.figures)


def test_policies_are_compared_by_name(mlflow_url, logged, other):
    names = [made.sha256("policy w4a4", "policy.json") for made in (logged, other)]
    found = compare(mlflow_url, *names)
    assert found.policies == tuple(names)
    assert found.bits == {f"{NAME}.conv2": {"weight_bits": (4, 8)}}


def test_a_thing_does_not_differ_from_itself(mlflow_url, logged):
    found = compare(mlflow_url, f"models:/{NAME}-w4a4/1", str(deployed(logged)))
    assert (found.bits, found.stages, found.figures) == ({}, {}, {})


def test_a_stage_that_only_one_of_them_has_is_said(mlflow_url, logged):
    found = compare(mlflow_url, logged.run_id("indicators"), logged.run_id("policy w4a4"))
    assert found.stages["policy"].code == ("only in the second",)


def test_a_file_that_two_runs_made_is_registered_and_used_whichever_is_asked(mlflow_url, tmp_path):
    first, second = (log_pipeline(mlflow_url, tmp_path, "again") for _ in range(2))
    by_stage = {cell.partition(" ")[0]: record for cell, record in second.records.items()}
    register(mlflow_url, "again", "w4a4", by_stage, {})
    experiment_run.log(mlflow_url, "again", "w4a4", uses=second.records, cached={}, context={})
    assert trace(mlflow_url, "models:/again-w4a4/1").subject.run.run_id == second.run_id("deployable w4a4")
    found = trace(mlflow_url, str(deployed(first)))
    assert found.subject.run.run_id == first.run_id("deployable w4a4")
    assert [str(version) for version, _ in found.versions] == ["models:/again-w4a4/1"]
    assert len(found.experiment_runs) == 1


def test_adoption_stays_with_the_bytes_wherever_they_lead(mlflow_url, logged, tmp_path):
    record = logged.records["indicators"]
    adopted = replace(record, key="a" * 64, run_id=None, adopted=Adopted(record.key, "renamed a variable"))
    files = {name: logged.files[output.sha256] for name, output in record.outputs.items()}
    run_id = tracking.log_stage(mlflow_url, adopted, files, {})
    found = trace(mlflow_url, logged.run_id("deployable w4a4"))
    assert [one.run_id for one in found.adoptions[record.run_id]] == [run_id]
    assert found.adoptions[record.run_id][0].tags["mixbit.adopted"] == "renamed a variable"
    assert tracking.fetch_record(mlflow_url, run_id).adopted == adopted.adopted
    assert "renamed a variable" in "\n".join(trace_lines(found))

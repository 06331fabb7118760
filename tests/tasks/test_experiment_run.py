"""Experiment runs, against a real MLflow server."""

import pytest
import yaml

from tasks import experiment_run, tracking_rest
from tasks.place import ROOT
from tasks.tracking_runs import experiment_id, get_run, search_runs, start_run
from tests.tasks.lineage_records import log_pipeline


@pytest.fixture(scope="module")
def records(mlflow_url, tmp_path_factory):
    return log_pipeline(mlflow_url, tmp_path_factory.mktemp("files"), "experiment").records


def log(url, experiment, records, **changes):
    given = {"uses": records, "cached": dict.fromkeys(records, False), "context": {"git.commit": "c0ffee"}}
    return experiment_run.log(url, experiment, "w4a4", **(given | changes))


def test_a_run_names_every_stage_run_behind_its_figures(mlflow_url, records):
    run = get_run(mlflow_url, log(mlflow_url, "names", records, cached={"indicators": True, "policy w4a4": False}))
    assert run.uses["indicators"] == run.tags["uses.indicators"] == records["indicators"].run_id
    assert run.tags["uses.policy.w4a4"] == records["policy w4a4"].run_id
    assert (run.tags["indicators.cached"], run.tags["policy.w4a4.cached"]) == ("true", "false")
    assert (run.name, run.status) == ("w4a4", "FINISHED")


def test_the_figures_a_user_compares_are_metrics(mlflow_url, records):
    run = get_run(mlflow_url, log(mlflow_url, "figures", records))
    assert run.metrics["deployable.w4a4.test_metric_deployed"] == 0.97
    assert run.metrics["profile.w4a4.pi5.latency_us"] == 804
    given = get_run(mlflow_url, log(mlflow_url, "figures", records, figures={"latency_us[pi5]": 8.5}))
    assert given.metrics == {"latency_us.pi5": 8.5}


def test_the_same_results_are_logged_once(mlflow_url, records):
    first = log(mlflow_url, "once", records)
    assert log(mlflow_url, "once", records, cached=dict.fromkeys(records, True)) == first
    assert len(search_runs(mlflow_url, "attributes.run_name = 'w4a4'", [experiment_id(mlflow_url, "once")])) == 1


def test_other_results_are_another_run(mlflow_url, records):
    first = log(mlflow_url, "other", records)
    fewer = {name: record for name, record in records.items() if name != "float_model"}
    assert log(mlflow_url, "other", fewer) != first


def test_a_run_in_a_sweep_names_its_parent(mlflow_url, records):
    sweep = start_run(mlflow_url, experiment_id(mlflow_url, "sweep"), "sweep", {})
    run = get_run(mlflow_url, log(mlflow_url, "sweep", records, parent=sweep.run_id))
    assert run.tags["mlflow.parentRunId"] == sweep.run_id


def test_every_tag_is_in_the_vocabulary(mlflow_url, records):
    known = yaml.safe_load((ROOT / "mlflow" / "tags.yaml").read_text())["experiment_run"]
    tags = get_run(mlflow_url, log(mlflow_url, "tags", records)).tags
    ours = {tag for tag in tags if not tag.startswith(("mlflow.", "uses.")) and not tag.endswith(".cached")}
    assert ours <= set(known)


def test_a_report_lies_beside_the_run_and_is_replaced(mlflow_url, records, tmp_path):
    run = get_run(mlflow_url, log(mlflow_url, "report", records))
    for content in (b"old", b"new"):
        (tmp_path / "page").write_bytes(content)
        experiment_run.attach(mlflow_url, run.run_id, {"report.html": tmp_path / "page"})
    path = f"{tracking_rest.artifact_path(mlflow_url, run.artifacts)}/report.html"
    assert tracking_rest.read(mlflow_url, path) == b"new"


def test_a_run_that_broke_off_is_not_taken_for_one(mlflow_url, records, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(experiment_run, "finish_run", broken_off)
        with pytest.raises(KeyboardInterrupt):
            log(mlflow_url, "broken", records)
    assert get_run(mlflow_url, log(mlflow_url, "broken", records)).status == "FINISHED"


def broken_off(*_):
    raise KeyboardInterrupt

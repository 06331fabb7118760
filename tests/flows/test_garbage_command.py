"""`mixbit gc` beside a real registry: what aliases, experiments and pinned policies keep."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.garbage import gc_command
from mixbit.errors import MisuseError
from tasks import tracking_rest as rest
from tasks.registration import register
from tasks.store import Store
from tests.tasks.lineage_records import log_pipeline

NAME = f"garbage{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # workers share one server
DEPLOYED = "deployable w4a4"


@pytest.fixture
def store(tmp_path, mlflow_url, monkeypatch):
    monkeypatch.setenv("MIXBIT_MLFLOW_URL", mlflow_url)
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path / "state"))
    return Store(tmp_path / "state")


@pytest.fixture
def filled(store, tmp_path, mlflow_url, request):
    """Pipelines by the bits of one layer, in the store and on the server."""
    made = {}
    for conv2 in (2, 4, 8):
        folder = tmp_path / f"files{conv2}"
        folder.mkdir()
        made[conv2] = log_pipeline(mlflow_url, folder, f"{NAME}-{request.node.name}", conv2=conv2)
        for record in made[conv2].records.values():
            for name, output in record.outputs.items():
                shutil.copy(made[conv2].files[output.sha256], folder / name)
                store.put(folder / name)
            store.write_record(record)
    return made


def gc(*words):
    ran = CliRunner().invoke(gc_command, ["--json", *words], catch_exceptions=False)
    found = json.loads(ran.output)
    return {(one["kind"], Path(one["path"]).name.partition(".")[0]) for one in found["found"]}, found["notes"]


def keys(made):
    return {("record", record.key) for record in made.records.values()}


def test_what_an_alias_leads_back_to_is_kept(filled, store, mlflow_url, request):
    for conv2 in (2, 4):  # champion, then candidate
        by_stage = {cell.partition(" ")[0]: record for cell, record in filled[conv2].records.items()}
        register(mlflow_url, f"{NAME}-{request.node.name}", "w4a4", by_stage, {})
    found, _ = gc()
    assert not found & (keys(filled[2]) | keys(filled[4]))
    assert keys(filled[8]) & found == keys(filled[8]) - keys(filled[2])
    gc("--apply")
    assert store.fault(filled[2].records[DEPLOYED].outputs["packed.onnx"]) is None
    assert store.fault(filled[8].records[DEPLOYED].outputs["packed.onnx"]) == "lost"
    assert gc()[0] == set()


def test_an_alias_moved_away_frees_what_it_reached(filled, mlflow_url, request):
    name = f"{NAME}-{request.node.name}"
    for conv2 in (2, 4):
        by_stage = {cell.partition(" ")[0]: record for cell, record in filled[conv2].records.items()}
        register(mlflow_url, name, "w4a4", by_stage, {})
    body = {"name": f"{name}-w4a4", "alias": "champion", "version": "2"}
    rest.post(mlflow_url, "registered-models/alias", body)
    assert ("record", filled[2].records[DEPLOYED].key) in gc()[0]


def test_with_the_server_away_no_deployable_goes_and_it_is_said(filled, monkeypatch):
    monkeypatch.setenv("MIXBIT_MLFLOW_URL", "")
    found, notes = gc()
    assert not any(key in str(found) for key in (made.records[DEPLOYED].key for made in filled.values()))
    assert "the tracking server is away" in notes[0]


def test_a_policy_that_an_experiment_names_by_file_is_kept(filled, store, tmp_path):
    policy = filled[2].records["policy w4a4"]
    shutil.copy(store.blob(policy.outputs["policy.json"].sha256), tmp_path / "mine.json")
    (tmp_path / "pinned.yaml").write_text("policy: mine.json\n")
    store.set_latest("pinned", "dataset", filled[2].records["dataset"])
    assert ("record", policy.key) in gc()[0]
    store.set_file("pinned", tmp_path / "pinned.yaml")
    assert ("record", policy.key) not in gc()[0]


def test_the_latest_cells_stay_until_the_experiments_file_is_gone(filled, store, tmp_path):
    record = filled[4].records[DEPLOYED]
    store.set_latest("mine", DEPLOYED, record)
    store.set_file("mine", tmp_path / "mine.yaml")
    assert {("record", record.key), ("latest", "deployable@w4a4")} <= gc()[0]
    assert ("record", record.key) not in gc("--keep", "mine")[0]
    (tmp_path / "mine.yaml").write_text("budgets: {}")
    assert ("record", record.key) not in gc()[0]


def test_an_experiment_whose_file_nobody_remembers_is_kept(filled, store):
    store.set_latest("old", DEPLOYED, filled[4].records[DEPLOYED])
    found, notes = gc()
    assert ("record", filled[4].records[DEPLOYED].key) not in found
    assert notes == ["old: kept, its file is not known"]


def test_keep_takes_a_digest_and_refuses_what_the_store_does_not_have(filled):
    output = filled[8].records[DEPLOYED].outputs["packed.onnx"]
    assert not gc("--keep", output.sha256[:12])[0] & keys(filled[8]) - {
        ("record", filled[8].records["profile w4a4 pi5"].key)
    }
    with pytest.raises(MisuseError, match=r"--keep nothing: expected an experiment's name.*got none of these"):
        gc("--keep", "nothing")

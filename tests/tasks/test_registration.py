"""Registration, against a real MLflow server."""

import pytest
import yaml

from mixbit.errors import MisuseError, MixbitError
from tasks import registration
from tasks.place import ROOT
from tasks.registration import find_version, register
from tests.tasks.lineage_records import log_pipeline


@pytest.fixture
def records(mlflow_url, tmp_path_factory):
    """Salt and conv2's bits -> stage -> record."""

    def log(salt, conv2=4):
        logged = log_pipeline(mlflow_url, tmp_path_factory.mktemp("files"), salt, conv2=conv2)
        return {cell.partition(" ")[0]: record for cell, record in logged.records.items()}

    return log


def test_a_deployable_is_registered_once(mlflow_url, records):
    made = records("once")
    first = register(mlflow_url, "once", "w4a4", made, {})
    assert register(mlflow_url, "once", "w4a4", made, {}) == first
    assert (first.name, first.version) == ("once-w4a4", 1)


def test_a_version_says_what_it_was_made_of(mlflow_url, records):
    made = records("tags")
    register(mlflow_url, "tags", "w4a4", made, {"git.commit": "c0ffee"})
    found = find_version(mlflow_url, "models:/tags-w4a4/1")
    assert found.run_id == made["deployable"].run_id
    assert found.tags["onnx.sha256"] == made["deployable"].outputs["packed.onnx"].sha256
    assert found.tags["policy.sha256"] == made["policy"].outputs["policy.json"].sha256
    assert found.tags["indicators.sha256"] == made["indicators"].outputs["indicators.json"].sha256
    assert set(found.tags) <= set(yaml.safe_load((ROOT / "mlflow" / "tags.yaml").read_text())["model_version"])


def test_the_candidate_follows_the_latest_run_and_the_champion_stays(mlflow_url, records):
    old, new = records("aliases", 4), records("aliases", 8)
    versions = [register(mlflow_url, "aliases", "w4a4", made, {}).version for made in (old, new)]
    assert versions == [1, 2]
    assert find_version(mlflow_url, "models:/aliases-w4a4@champion").version == 1
    assert find_version(mlflow_url, "models:/aliases-w4a4@candidate").version == 2
    register(mlflow_url, "aliases", "w4a4", old, {})
    assert find_version(mlflow_url, "models:/aliases-w4a4@candidate").version == 1


def test_a_registration_that_broke_off_is_completed(mlflow_url, records, monkeypatch):
    made = records("broken")
    with monkeypatch.context() as patched:
        patched.setattr(registration, "_point_aliases", broken_off)
        with pytest.raises(KeyboardInterrupt):
            register(mlflow_url, "broken", "w4a4", made, {})
    assert register(mlflow_url, "broken", "w4a4", made, {}).version == 1
    assert find_version(mlflow_url, "models:/broken-w4a4@champion").version == 1


def broken_off(*_):
    raise KeyboardInterrupt


def test_a_digest_that_someone_changed_is_put_right(mlflow_url, records):
    from tasks import tracking_rest

    made = records("changed")
    register(mlflow_url, "changed", "w4a4", made, {})
    body = {"name": "changed-w4a4", "version": "1", "key": "policy.sha256", "value": "wrong"}
    tracking_rest.post(mlflow_url, "model-versions/set-tag", body)
    register(mlflow_url, "changed", "w4a4", made, {})
    right = made["policy"].outputs["policy.json"].sha256
    assert find_version(mlflow_url, "models:/changed-w4a4/1").tags["policy.sha256"] == right


@pytest.mark.parametrize("reference", ["models:/known-w4a4/9", "models:/known-w4a4@none"])
def test_an_unknown_version_lists_the_known_ones(mlflow_url, records, reference):
    register(mlflow_url, "known", "w4a4", records("known"), {})
    with pytest.raises(MixbitError, match="The server knows known-w4a4: 1, @candidate, @champion"):
        find_version(mlflow_url, reference)


def test_an_unknown_model_lists_the_known_names(mlflow_url, records):
    register(mlflow_url, "named", "w4a4", records("named"), {})
    with pytest.raises(MixbitError, match=r"The server knows .*named-w4a4"):
        find_version(mlflow_url, "models:/nobody/1")


def test_half_a_reference_is_misuse(mlflow_url):
    with pytest.raises(MisuseError, match="models:/NAME@ALIAS"):
        find_version(mlflow_url, "models:/digits-w4a4")

"""Stage runs, against a real MLflow server."""

import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from flows import servers
from flows.server_process import free_port
from mixbit.devices.fingerprint import fingerprint_sha256
from mixbit.errors import MixbitError
from tasks import tracking, tracking_rest, tracking_runs
from tasks.place import ROOT
from tasks.record import Input, Output, Record
from tasks.tracking_rest import ArtifactLost, TrackingRefused, TrackingUnavailable
from tests.tasks.lineage_records import log_pipeline


@pytest.fixture
def made(tmp_path):
    """(a record with random bytes behind it, its files)."""
    files = {"policy.json": tmp_path / "policy.json", "choice.json": tmp_path / "choice.json"}
    for name, path in files.items():
        path.write_bytes(os.urandom(2000) + name.encode())
    outputs = {name: Output(sha256(path), path.stat().st_size) for name, path in files.items()}
    params = {"alpha": 1.0, "budget": {"bitops": 5}, "num_bits": [2, 4]}
    inputs = {"dataset": Input("ab" * 32, "dataset/dataset.safetensors")}
    closure = {"policies/ilp.py": {"solve": "12"}}
    record = Record("policy", os.urandom(32).hex(), params, inputs, closure, {}, outputs, {"bitops": 5.0}, 1.25)
    return record, files


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_logged_is_found_by_key_and_comes_back_whole(mlflow_url, made, tmp_path):
    record, files = made
    run_id = tracking.log_stage(mlflow_url, record, files, {})
    assert tracking.find_stage(mlflow_url, record.key) == run_id
    assert tracking.fetch_record(mlflow_url, run_id) == replace(record, run_id=run_id)
    for name, path in files.items():
        tracking.fetch_output(mlflow_url, run_id, name, tmp_path / "back", sha256(path))
        assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_an_unknown_key_is_not_found(mlflow_url):
    assert tracking.find_stage(mlflow_url, "0" * 64) is None


def test_mlflows_own_client_reads_the_run(mlflow_url, made):
    record, files = made
    run_id = tracking.log_stage(mlflow_url, record, files, {"git.commit": "c0ffee", "dataset.md5": "d" * 32 + ".dir"})
    from mlflow import MlflowClient

    run = MlflowClient(mlflow_url).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert run.info.end_time - run.info.start_time >= 1250
    assert run.data.metrics == {"bitops": 5.0}
    assert run.data.params == {"alpha": "1.0", "budget.bitops": "5", "num_bits": "[2,4]"}
    assert run.data.tags["mixbit.output.policy.json"] == record.outputs["policy.json"].sha256
    assert run.data.tags["policy.sha256"] == record.outputs["policy.json"].sha256
    assert run.data.tags["git.commit"] == "c0ffee"
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.digest, json.loads(dataset.source)["sha256"]) == ("d" * 32 + ".dir", "ab" * 32)


def test_a_run_that_was_not_finished_is_never_used(mlflow_url, made, monkeypatch):
    record, files = made
    monkeypatch.setattr(tracking, "finish_run", broken_off)
    with pytest.raises(KeyboardInterrupt):
        tracking.log_stage(mlflow_url, record, files, {})
    assert tracking.find_stage(mlflow_url, record.key) is None


def broken_off(*_):
    raise KeyboardInterrupt


def test_the_first_that_finished_wins(mlflow_url, made):
    record, files = made
    first, _ = (tracking.log_stage(mlflow_url, record, files, {}) for _ in range(2))
    assert tracking.find_stage(mlflow_url, record.key) == first


def test_a_file_that_is_not_what_the_record_says_is_not_finished(mlflow_url, made):
    record, files = made
    files["choice.json"].write_bytes(b"other")
    with pytest.raises(MixbitError, match="altered while it was uploaded"):
        tracking.log_stage(mlflow_url, record, files, {})
    assert tracking.find_stage(mlflow_url, record.key) is None


def test_bytes_altered_or_lost_on_the_server_are_refused(mlflow_url, made, tmp_path):
    record, files = made
    run_id = tracking.log_stage(mlflow_url, record, files, {})
    with pytest.raises(ArtifactLost, match=f"altered on the tracking server.*Delete run {run_id}"):
        tracking.fetch_output(mlflow_url, run_id, "policy.json", tmp_path / "back", "0" * 64)
    with pytest.raises(ArtifactLost, match="nothing is lost on the tracking server"):
        tracking.fetch_output(mlflow_url, run_id, "nothing", tmp_path / "back", "0" * 64)
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob(".fetch-*"))


def test_more_params_and_metrics_than_one_request_takes(mlflow_url, made):
    record, files = made
    params = {f"p{number}": "x" * 7000 for number in range(230)}
    figures = {f"f{number}[pi5]": float(number) for number in range(230)}
    run_id = tracking.log_stage(mlflow_url, replace(record, params=params, figures=figures), files, {})
    run = tracking_runs.get_run(mlflow_url, run_id)
    assert len(run.params) == 230
    assert run.metrics["f229.pi5"] == 229


def test_every_tag_is_in_the_vocabulary(mlflow_url, tmp_path):
    logged = log_pipeline(mlflow_url, tmp_path, "vocabulary")
    known = yaml.safe_load((ROOT / "mlflow" / "tags.yaml").read_text())["stage_run"]
    spelled = {name.partition("<")[0] for name in known}
    for record in logged.records.values():
        tags = tracking_runs.get_run(mlflow_url, record.run_id).tags
        assert [tag for tag in tags if not tag.startswith("mlflow.") and not tag.startswith(tuple(spelled))] == []


def test_a_stage_that_measured_names_its_devices_by_their_fingerprints(made):
    marks = {"arch": "aarch64", "cores": "4"}
    one = {"device.arch": "aarch64", "device.cores": "4", "onnxruntime": "1.31"}
    several = {"device.pi5.arch": "aarch64", "device.pi5.cores": "4"}
    profile = replace(made[0], params={"device": "pi5"}, facts=one)
    assert tracking.measured_on(profile) == {"pi5": fingerprint_sha256(marks)}
    assert tracking.measured_on(replace(made[0], facts=several)) == tracking.measured_on(profile)
    assert tracking.measured_on(made[0]) == {}


def test_a_server_that_is_away_is_one_line():
    with pytest.raises(TrackingUnavailable, match=r"does not answer .*mixbit up.*MIXBIT_MLFLOW_URL") as caught:
        tracking.find_stage(f"http://127.0.0.1:{free_port(None)}", "0" * 64, timeout_s=0.2)
    assert "\n" not in str(caught.value)


def test_a_server_that_dies_during_the_upload_leaves_nothing_that_is_used(made, tmp_path, monkeypatch):
    record, files = made
    monkeypatch.setattr(tracking_rest, "RETRY_S", 0.2)
    url = servers.ensure(tmp_path / "state", ["mlflow"]).mlflow_url
    upload = tracking_rest.upload

    def die_then_upload(*call):
        servers.stop_all(tmp_path / "state")
        upload(*call)

    with monkeypatch.context() as patched:
        patched.setattr(tracking_rest, "upload", die_then_upload)
        with pytest.raises(TrackingUnavailable):
            tracking.log_stage(url, record, files, {})
    try:
        assert servers.ensure(tmp_path / "state", ["mlflow"]).mlflow_url == url
        assert tracking.find_stage(url, record.key) is None
        run_id = tracking.log_stage(url, record, files, {})
        assert tracking.find_stage(url, record.key) == run_id
    finally:
        servers.stop_all(tmp_path / "state")


def test_a_look_keeps_its_time_limit_when_the_server_hangs():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began_s = time.monotonic()
        with pytest.raises(TrackingUnavailable, match="timed out"):
            tracking.find_stage(f"http://127.0.0.1:{silent.getsockname()[1]}", "0" * 64, timeout_s=0.3)
        assert time.monotonic() - began_s < 10


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def test_a_server_that_comes_back_within_seconds_is_waited_for(monkeypatch):
    port, late, pause = free_port(None), [], time.sleep

    def start_then_pause(seconds):
        if not late:
            late.append(HTTPServer(("127.0.0.1", port), Answer))
            threading.Thread(target=late[0].serve_forever, daemon=True).start()
        pause(seconds)

    monkeypatch.setattr(tracking_rest.time, "sleep", start_then_pause)
    assert tracking_rest.get(f"http://127.0.0.1:{port}", "x", {}) == {}
    late[0].shutdown()
    late[0].server_close()


def test_a_page_that_is_no_mlflow_server_says_so(prefect_url):
    with pytest.raises(TrackingRefused, match="Is it an MLflow server"):
        tracking.find_stage(prefect_url, "0" * 64)


@pytest.mark.parametrize("url", ["localhost:5000", "file:///etc", "nonsense"])
def test_an_address_that_is_none_says_so(url):
    with pytest.raises(TrackingUnavailable, match="not an http address"):
        tracking.find_stage(url, "0" * 64)


def test_a_server_that_does_not_serve_artifacts_is_refused():
    with pytest.raises(MixbitError, match=r"does not serve artifacts.*--serve-artifacts"):
        tracking_rest.artifact_path("http://x", "/home/me/mlruns/1/2/artifacts")

"""Stage runs on the tracking server: one MLflow run per stage execution, FINISHED after its last byte.

A run that is not FINISHED is never used. Of several with one key the first that finished wins.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixbit.devices.fingerprint import fingerprint_sha256
from mixbit.policy import canonical_json
from tasks import tracking_rest as rest
from tasks.record import Record
from tasks.tracking_rest import RETRY_S, ArtifactLost
from tasks.tracking_runs import (
    Run,
    experiment_id,
    failed_unless_finished,
    find_experiment,
    finish_run,
    get_run,
    index,
    log_batch,
    search_runs,
    start_run,
)

STAGES = "mixbit-stages"
RECORD = "record.json"
ASKED = 200  # run ids in one search
DIGEST_CHARACTERS = 36  # of an MLflow dataset: an md5 and `.dir`


def log_stage(url: str, record: Record, files: Mapping[str, Path], context: Mapping[str, str]) -> str:
    """Log one stage execution with the bytes of its outputs.

    Args:
        url: the tracking server.
        record: what was computed.
        files: output file name -> its bytes; exactly the record's outputs.
        context: further tags (git.commit, git.dirty, prefect.flow_run_id, device, dataset.md5, dataset.name).

    Returns:
        The run id. The run is FINISHED, and everything in it is checked.

    Raises:
        TrackingUnavailable: the server went away; an unfinished run may stay behind and is never used.
    """
    assert files.keys() == record.outputs.keys()
    tags = _tags(record, files) | {name: value for name, value in context.items() if value}
    run = start_run(url, experiment_id(url, STAGES), record.stage, tags, seconds=record.seconds)
    with failed_unless_finished(url, run.run_id):
        log_batch(url, run.run_id, record.figures, _flat(record.params))
        _log_dataset(url, run.run_id, record, tags)
        root = rest.artifact_path(url, run.artifacts)
        for name, file in files.items():
            rest.upload(url, f"{root}/{name}", file, record.outputs[name].sha256)
        _upload_record(url, f"{root}/{RECORD}", replace(record, run_id=run.run_id))
        finish_run(url, run.run_id)
    return run.run_id


def find_stage(url: str, key: str, timeout_s: float = RETRY_S) -> str | None:
    """The first FINISHED run of this key, or None.

    Raises:
        TrackingUnavailable: no answer within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    found = find_experiment(url, STAGES, timeout_s)
    if found is None:
        return None
    body = {
        "experiment_ids": [found],
        "filter": f"tags.`mixbit.key` = '{key}' and attributes.status = 'FINISHED'",
        "order_by": ["attributes.end_time ASC"],
        "max_results": 1,
    }
    runs = rest.post(url, "runs/search", body, max(0.05, end - time.monotonic())).get("runs", [])
    return str(runs[0]["info"]["run_id"]) if runs else None


def find_stages(url: str, key: str) -> list[str]:
    """Every FINISHED run of this key, first finished first: what the first lost, a later one may have.

    Raises:
        TrackingUnavailable: no answer.
    """
    stages = find_experiment(url, STAGES)
    return [run.run_id for run in search_runs(url, f"tags.`mixbit.key` = '{key}'", [stages])] if stages else []


def finished(url: str, run_ids: Iterable[str]) -> set[str]:
    """Those of the run ids that the server knows as FINISHED stage runs, deleted ones not among them.

    Raises:
        TrackingUnavailable: no answer.
    """
    asked = sorted(set(run_ids))
    stages = find_experiment(url, STAGES) if asked else None
    found: set[str] = set()
    for begin in range(0, len(asked) if stages else 0, ASKED):
        listed = ", ".join(f"'{run_id}'" for run_id in asked[begin : begin + ASKED])
        found |= {run.run_id for run in search_runs(url, f"attributes.run_id IN ({listed})", [str(stages)])}
    return found


def find_same(url: str, record: Record) -> str | None:
    """A FINISHED run of the record's key that holds the very outputs of the record, or None."""
    stages = find_experiment(url, STAGES)
    outputs = {name: one.sha256 for name, one in record.outputs.items()}
    runs = search_runs(url, f"tags.`mixbit.key` = '{record.key}'", [stages]) if stages else []
    return next((run.run_id for run in runs if run.outputs == outputs), None)


def fetch_record(url: str, run_id: str) -> Record:
    """The record that a stage run was logged with.

    Raises:
        ArtifactLost: the server lost it, or it is not one.
        TrackingUnavailable: no answer.
    """
    path = f"{rest.artifact_path(url, get_run(url, run_id).artifacts)}/{RECORD}"
    try:
        record = Record.from_json(rest.read(url, path))
    except (ValueError, TypeError, KeyError, AttributeError):
        hint = f"Delete run {run_id} there, and the stage is computed again"
        raise ArtifactLost(url, f"{path} is altered on the tracking server", hint=hint) from None
    return replace(record, run_id=run_id)


def fetch_output(url: str, run_id: str, name: str, target: Path, sha256: str) -> None:
    """Bring one output file to `target`, checked against `sha256`.

    Raises:
        ArtifactLost: the server lost or altered it.
        TrackingUnavailable: no answer.
    """
    rest.download(url, f"{rest.artifact_path(url, get_run(url, run_id).artifacts)}/{name}", target, sha256)


def read_output(url: str, run: Run, name: str) -> bytes:
    """The bytes of a small output, checked against the run's own tags.

    Raises:
        ArtifactLost: the server lost or altered it.
    """
    path = f"{rest.artifact_path(url, run.artifacts)}/{name}"
    content = rest.read(url, path)
    got = hashlib.sha256(content).hexdigest()
    if got != run.outputs[name]:
        raise ArtifactLost(url, f"{path} is altered on the tracking server", expected=run.outputs[name], got=got)
    return content


def _tags(record: Record, files: Mapping[str, Path]) -> dict[str, str]:
    inputs = {name: one.sha256 for name, one in record.inputs.items()}
    outputs = {name: one.sha256 for name, one in record.outputs.items()}
    tags = {"mixbit.stage": record.stage, "mixbit.key": record.key}
    made_by = {f"{name}={one.artifact}": one.sha256 for name, one in record.inputs.items()}
    tags |= {"mixbit.inputs": index(made_by), "mixbit.outputs": index(outputs)}
    tags |= {f"mixbit.input.{name}": sha256 for name, sha256 in inputs.items()}
    tags |= {f"mixbit.output.{name}": sha256 for name, sha256 in outputs.items()}
    policy = outputs.get("policy.json") or inputs.get("policy")
    info = json.loads(files["dataset_info.json"].read_bytes()) if "dataset_info.json" in files else {}
    device, devices = record.params.get("device"), measured_on(record)
    derived = {
        "policy.sha256": policy,
        "dataset.md5": info.get("md5"),
        "dataset.name": info.get("source"),
        "device": device,
        "mixbit.devices": index(devices) if devices else None,
    }
    if record.adopted is not None:
        derived |= {"mixbit.adopted": record.adopted.reason, "mixbit.adopted_from": record.adopted.from_key}
    return tags | {name: value for name, value in derived.items() if isinstance(value, str) and value}


def measured_on(record: Record) -> dict[str, str]:
    """Device -> digest of the fingerprint that the figures of a stage depend on; empty where nothing was measured."""
    found: dict[str, dict[str, str]] = {}
    for fact, value in record.facts.items():
        if fact.startswith("device."):
            name, _, mark = fact.removeprefix("device.").rpartition(".")
            found.setdefault(name or str(record.params.get("device")), {})[mark] = value
    return {name: fingerprint_sha256(marks) for name, marks in found.items()}


def _flat(params: Any, path: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`; lists stay one value."""
    if isinstance(params, Mapping):
        return {
            name: value
            for key, inner in params.items()
            for name, value in _flat(inner, f"{path}.{key}".strip(".")).items()
        }
    return {path: params if isinstance(params, str) else canonical_json(params).decode()}


def _log_dataset(url: str, run_id: str, record: Record, tags: Mapping[str, str]) -> None:
    """The dataset as an input that MLflow itself knows, by DVC's md5 where there is one."""
    dataset = record.inputs.get("dataset")
    if dataset is None:
        return
    described = {
        "name": tags.get("dataset.name", "dataset"),
        "digest": tags.get("dataset.md5", dataset.sha256)[:DIGEST_CHARACTERS],
        "source_type": "mixbit",
        "source": canonical_json({"sha256": dataset.sha256}).decode(),
    }
    role = [{"key": "mlflow.data.context", "value": record.stage}]
    rest.post(url, "runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": described, "tags": role}]})


def _upload_record(url: str, path: str, record: Record) -> None:
    content = record.to_json()
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        rest.upload(url, path, Path(file.name), hashlib.sha256(content).hexdigest())

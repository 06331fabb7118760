"""Runs on the tracking server, of whatever kind: start, log, finish, search."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mixbit.errors import MixbitError
from tasks import tracking_rest as rest
from tasks.tracking_rest import RETRY_S, TrackingRefused

VALUE_CHARACTERS, TAG_CHARACTERS, BATCH = 6000, 8000, 100


@dataclass(frozen=True)
class Run:
    """One MLflow run as the server knows it."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    ended_ms: int
    artifacts: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]

    @property
    def outputs(self) -> dict[str, str]:
        """File -> sha256."""
        return parse_index(self.tags.get("mixbit.outputs", ""))

    @property
    def inputs(self) -> dict[str, tuple[str, str]]:
        """Input name -> (sha256, artifact of its maker)."""
        parsed = parse_index(self.tags.get("mixbit.inputs", ""))
        return {name.partition("=")[0]: (sha256, name.partition("=")[2]) for name, sha256 in parsed.items()}

    @property
    def devices(self) -> dict[str, str]:
        """Of a stage that measured: device -> digest of its fingerprint."""
        return parse_index(self.tags.get("mixbit.devices", ""))

    @property
    def uses(self) -> dict[str, str]:
        """Of an experiment run: cell -> run id."""
        return parse_index(self.tags.get("mixbit.uses", ""))


def experiment_id(url: str, name: str) -> str:
    """The id of an MLflow experiment, created where there is none.

    Raises:
        MixbitError: it was deleted; its name stays taken.
    """
    found = find_experiment(url, name)
    if found is None:
        try:
            found = str(rest.post(url, "experiments/create", {"name": name})["experiment_id"])
        except TrackingRefused as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = find_experiment(url, name)  # another process was first
            if found is None:
                hint = "Restore it on its page or with `mlflow experiments restore`"
                raise MixbitError(url, f"MLflow experiment {name} is deleted", hint=hint) from None
    return found


def get_run(url: str, run_id: str) -> Run:
    """One run.

    Raises:
        TrackingRefused: there is none of this id.
    """
    return _run(rest.get(url, "runs/get", {"run_id": run_id})["run"])


def search_runs(url: str, condition: str, experiments: list[str] | None = None, limit: int | None = None) -> list[Run]:
    """FINISHED runs that meet an MLflow filter, first finished first; in all experiments unless named."""
    if experiments is None:
        listed = rest.search(url, "experiments/search", "experiments", {"view_type": "ACTIVE_ONLY"})
        experiments = [str(one["experiment_id"]) for one in listed]
    body = {
        "experiment_ids": experiments,
        "filter": f"{condition} and attributes.status = 'FINISHED'",
        "order_by": ["attributes.end_time ASC"],
    }
    return [_run(one) for one in rest.search(url, "runs/search", "runs", body, limit)] if experiments else []


def start_run(
    url: str, experiment: str, name: str, tags: Mapping[str, str], *, seconds: float = 0.0, parent: str | None = None
) -> Run:
    """Create a run, not yet FINISHED; a parent is always named, never guessed from the thread."""
    known = dict(tags) | ({"mlflow.parentRunId": parent} if parent else {})
    tagged = [{**one, "value": one["value"][:TAG_CHARACTERS]} for one in rest.items(known)]
    start_ms = int((time.time() - seconds) * 1000)
    body = {"experiment_id": experiment, "run_name": name, "start_time": start_ms, "tags": tagged}
    return _run(rest.post(url, "runs/create", body)["run"])


def log_batch(url: str, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
    """Metrics and parameters in as few requests as the server takes."""
    now_ms = int(time.time() * 1000)
    measured = [
        {"key": metric_name(key), "value": value, "timestamp": now_ms, "step": 0} for key, value in metrics.items()
    ]
    given = [{"key": metric_name(key), "value": value[:VALUE_CHARACTERS]} for key, value in params.items()]
    for begin in range(0, max(len(measured), len(given)), BATCH):
        part = slice(begin, begin + BATCH)
        rest.post(url, "runs/log-batch", {"run_id": run_id, "metrics": measured[part], "params": given[part]})


def finish_run(url: str, run_id: str) -> None:
    """The last word on a run: from now on it counts."""
    rest.post(url, "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": int(time.time() * 1000)})


@contextlib.contextmanager
def failed_unless_finished(url: str, run_id: str) -> Iterator[None]:
    """Mark the run FAILED when its logging breaks off, as far as the server still listens."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(MixbitError):
            body = {"run_id": run_id, "status": "FAILED", "end_time": int(time.time() * 1000)}
            rest.post(url, "runs/update", body, timeout_s=0.5)
        raise


def metric_name(name: str) -> str:
    """A name in MLflow's alphabet: `latency_us[pi5]` becomes `latency_us.pi5`."""
    return re.sub(r"\.{2,}", ".", re.sub(r"[^\w\-. :/]", ".", name)).strip("./ ")


def index(values: Mapping[str, str]) -> str:
    """Names and digests in one searchable line: `|a=12…|b=34…|`."""
    return "".join(f"|{name}={value}" for name, value in sorted(values.items())) + "|"


def parse_index(line: str) -> dict[str, str]:
    """The way back."""
    parts = (part.rpartition("=") for part in line.split("|") if part)
    return {name: value for name, _, value in parts}


def find_experiment(url: str, name: str, timeout_s: float = RETRY_S) -> str | None:
    """The id, or None where there is none or it was deleted."""
    try:
        found = rest.get(url, "experiments/get-by-name", {"experiment_name": name}, timeout_s)["experiment"]
    except TrackingRefused as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return str(found["experiment_id"]) if found.get("lifecycle_stage") == "active" else None


def _run(found: Mapping[str, Any]) -> Run:
    info, data = found["info"], found["data"]
    return Run(
        run_id=info["run_id"],
        experiment_id=info["experiment_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        ended_ms=int(info.get("end_time", 0)),
        artifacts=info["artifact_uri"],
        tags=rest.mapping(data.get("tags", [])),
        metrics={key: float(value) for key, value in rest.mapping(data.get("metrics", [])).items()},
        params=rest.mapping(data.get("params", [])),
    )

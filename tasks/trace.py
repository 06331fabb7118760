"""Where an artifact came from and what came of it, as the tracking server knows it."""

import functools
import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from mixbit.errors import MisuseError, MixbitError
from tasks import tracking_rest as rest
from tasks.registration import PACKED, Version, find_version, versions_of_file
from tasks.tracking import STAGES, fetch_output
from tasks.tracking_rest import TrackingRefused
from tasks.tracking_runs import Run, find_experiment, get_run, search_runs

SHORTEST = 8
ELSEWHERE = "If another server knows it, set $MIXBIT_MLFLOW_URL"
ALTERED = f"It was altered after it was made, or comes from elsewhere: compare it with the original. {ELSEWHERE}"
EXPECTED = "a file, models:/NAME/VERSION, models:/NAME@ALIAS, a sha256 (8 digits or more) or a run id"


@dataclass(frozen=True)
class Subject:
    """What was asked for. `run` made it (None: a source file that no stage made); `sha256` is None for a whole run."""

    what: str
    run: Run | None
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Edge:
    """One input of a run; `maker` is None for a source, or where its maker is not on this server."""

    name: str
    sha256: str
    artifact: str
    maker: str | None


@dataclass(frozen=True)
class Lineage:
    """Runs by id, and the inputs of each. `twins`: run -> other runs that made the same bytes."""

    runs: Mapping[str, Run] = field(default_factory=dict)
    edges: Mapping[str, list[Edge]] = field(default_factory=dict)
    twins: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """Both directions from one subject. `adoptions`: run -> runs that adopted its bytes for changed code."""

    subject: Subject
    roots: list[str]
    made_from: Lineage
    used_by: list[Run]
    versions: list[tuple[Version, list[str]]]
    experiment_runs: list[Run]
    adoptions: Mapping[str, list[Run]] = field(default_factory=dict)


def trace(url: str, what: str) -> Trace:
    """Everything behind `what`, and everything made of it.

    Raises:
        MixbitError: the server does not know it.
        MisuseError: it is nothing that can be traced.
        TrackingUnavailable: no answer.
    """
    subject = resolve(url, what)
    roots = _roots(subject)
    is_experiment_run = subject.run is not None and bool(subject.run.uses)
    beside = [subject.run] if is_experiment_run and subject.run else _experiment_runs(url, roots)
    made_from = lineage(url, roots, {run_id for run in beside[:1] for run_id in run.uses.values()})
    used_by = [] if is_experiment_run else users(url, _digests(subject))
    runs = [*(made_from.runs[root] for root in roots), *used_by]
    packed = dict.fromkeys(run.outputs[PACKED] for run in runs if PACKED in run.outputs)
    versions = [one for sha256 in packed for one in versions_of_file(url, sha256)]
    makers = dict.fromkeys(run.run_id for run in [*runs, *_twins(url, subject)])
    experiment_runs = [] if is_experiment_run else _experiment_runs(url, makers)
    needed = {edge.maker for edges in made_from.edges.values() for edge in edges}
    top = [root for root in roots if root not in needed]
    return Trace(subject, top, made_from, used_by, versions, experiment_runs, adoptions(url, made_from.runs.values()))


def resolve(url: str, what: str) -> Subject:
    """The run and file that `what` names; of several runs that made the same bytes, the first that finished."""
    if what.startswith("models:"):
        version = find_version(url, what)
        return Subject(what, get_run(url, version.run_id), PACKED, version.tags.get("onnx.sha256"))
    if Path(what).is_file():
        return _of_file(url, Path(what))
    if re.fullmatch(r"[0-9a-f]{32}(\.dir)?", what) and (subject := _of_run(url, what) or _of_md5(url, what)):
        return subject
    if re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", what):
        subject = _of_digest(url, what, what)
        if subject is None:
            raise MixbitError(what, f"{url} knows no artifact, stage key or run of this name", hint=ELSEWHERE)
        return subject
    raise MisuseError(what, "", expected=EXPECTED, got="a folder" if Path(what).is_dir() else "none of these")


def lineage(url: str, roots: Iterable[str], beside: AbstractSet[str] = frozenset()) -> Lineage:
    """Every run that the roots depend on, themselves included.

    Where several runs made the same bytes, the one in `beside` (used by the same experiment run), else the first.
    """
    runs: dict[str, Run] = {}
    edges: dict[str, list[Edge]] = {}
    twins: dict[str, list[str]] = {}
    makers = functools.cache(
        lambda sha256, artifact: sorted(_makers(url, sha256, artifact), key=lambda run: run.run_id not in beside)
    )
    waiting = [get_run(url, run_id) for run_id in roots]
    while waiting:
        run = waiting.pop(0)
        if run.run_id in runs:
            continue
        runs[run.run_id], edges[run.run_id] = run, []
        for name, (sha256, artifact) in run.inputs.items():
            made = makers(sha256, artifact)
            edges[run.run_id].append(Edge(name, sha256, artifact, made[0].run_id if made else None))
            waiting += made[:1]
            if len(made) > 1:
                twins[made[0].run_id] = [one.run_id for one in made[1:]]
    return Lineage(runs, edges, twins)


def adoptions(url: str, runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Run id -> runs, the run itself or twins of it, whose bytes were adopted and not made by the code of their key."""
    adopted = _stage_runs(url, "tags.`mixbit.adopted_from` LIKE '%'")
    same = {run.run_id: [one for one in adopted if _bytes(one) == _bytes(run)] for run in runs} if adopted else {}
    return {run_id: found for run_id, found in same.items() if found}


def _bytes(run: Run) -> tuple[str | None, dict[str, str]]:
    return run.tags.get("mixbit.stage"), run.outputs


def users(url: str, digests: Iterable[str]) -> list[Run]:
    """Every stage run that read one of these artifacts, or what was made of them, first finished first."""
    found: dict[str, Run] = {}
    waiting, seen = list(digests), set()
    while waiting:
        sha256 = waiting.pop()
        if sha256 in seen:
            continue
        seen.add(sha256)
        for run in _stage_runs(url, f"tags.`mixbit.inputs` LIKE '%={sha256}|%'"):
            if run.run_id not in found:
                found[run.run_id] = run
                waiting += run.outputs.values()
    return sorted(found.values(), key=lambda run: (run.ended_ms, run.run_id))


def verify(url: str, runs: Iterable[Run]) -> tuple[int, int]:
    """Fetch every output of these runs and compare digests; (files, bytes).

    Raises:
        ArtifactLost: the first that is gone or altered.
    """
    files = size_bytes = 0
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            for name, sha256 in run.outputs.items():
                target = Path(folder) / "file"
                fetch_output(url, run.run_id, name, target, sha256)
                files, size_bytes = files + 1, size_bytes + target.stat().st_size
    return files, size_bytes


def _of_file(url: str, path: Path) -> Subject:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    subject = _of_digest(url, str(path), sha256)
    if subject is None:
        raise MixbitError(str(path), f"unknown: {url} knows no artifact with sha256 {sha256}", hint=ALTERED)
    return subject


def _of_run(url: str, run_id: str) -> Subject | None:
    try:
        run = get_run(url, run_id)
    except TrackingRefused as error:
        if error.code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise
    if not run.uses and "mixbit.stage" not in run.tags:
        raise MixbitError(run_id, "a run that mixbit did not log", expected="a stage run or an experiment run")
    return Subject(run_id, run)


def _of_md5(url: str, md5: str) -> Subject | None:
    runs = _stage_runs(url, f"tags.`dataset.md5` = '{md5}' and tags.`mixbit.stage` = 'dataset'", limit=1)
    return Subject(md5, runs[0]) if runs else None


def _of_digest(url: str, what: str, prefix: str) -> Subject | None:
    """By the digest of an output, of an input that no stage made, or by stage key."""
    if not prefix:
        return None
    runs = _stage_runs(url, f"tags.`mixbit.outputs` LIKE '%={prefix}%'")
    outputs = {
        sha256: (file, run)
        for run in reversed(runs)
        for file, sha256 in run.outputs.items()
        if sha256.startswith(prefix)
    }
    _only_one(what, list(outputs))
    for sha256, (file, run) in outputs.items():
        return Subject(what, run, file, sha256)
    readers = _stage_runs(url, f"tags.`mixbit.inputs` LIKE '%={prefix}%'")
    inputs = {sha256 for run in readers for sha256, _ in run.inputs.values() if sha256.startswith(prefix)}
    _only_one(what, sorted(inputs))
    for sha256 in inputs:
        return Subject(what, None, "source", sha256)
    keyed = {run.tags["mixbit.key"]: run for run in reversed(_stage_runs(url, f"tags.`mixbit.key` LIKE '{prefix}%'"))}
    _only_one(what, sorted(keyed))
    return next((Subject(what, run) for run in keyed.values()), None)


def _only_one(what: str, digests: list[str]) -> None:
    if len(digests) > 1:
        shown = ", ".join(sha256[: len(what) + 4] for sha256 in sorted(digests)[:4])
        raise MixbitError(what, f"begins {len(digests)} digests", got=shown, hint="Give more digits")


def _roots(subject: Subject) -> list[str]:
    if subject.run is None:
        return []
    return list(dict.fromkeys(subject.run.uses.values())) or [subject.run.run_id]


def _twins(url: str, subject: Subject) -> list[Run]:
    """Every run that made the bytes of the subject."""
    return _stage_runs(url, f"tags.`mixbit.outputs` LIKE '%={subject.sha256}|%'") if subject.sha256 else []


def _digests(subject: Subject) -> list[str]:
    """What to look for in others' inputs."""
    if subject.sha256 is not None:
        return [subject.sha256]
    return list(subject.run.outputs.values()) if subject.run is not None else []


def _makers(url: str, sha256: str, artifact: str) -> list[Run]:
    """Runs of the stage that made these bytes; none for a source."""
    stage, slash, _ = artifact.partition("/")
    if not slash:
        return []
    return _stage_runs(url, f"tags.`mixbit.outputs` LIKE '%={sha256}|%' and tags.`mixbit.stage` = '{stage}'")


def _stage_runs(url: str, condition: str, limit: int | None = None) -> list[Run]:
    stages = find_experiment(url, STAGES)
    return search_runs(url, condition, [stages], limit) if stages else []


def _experiment_runs(url: str, makers: Iterable[str]) -> list[Run]:
    listed = rest.search(url, "experiments/search", "experiments", {"view_type": "ACTIVE_ONLY"})
    ids = [str(one["experiment_id"]) for one in listed if one["name"] != STAGES]
    conditions = [f"tags.`mixbit.uses` LIKE '%={maker}|%'" for maker in makers]
    found = {run.run_id: run for condition in conditions for run in search_runs(url, condition, ids)}
    return sorted(found.values(), key=lambda run: (run.ended_ms, run.run_id))

"""Effect `experiment_run`: one MLflow run per (experiment, budget) and set of results, with all figures. Idempotent."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mixbit.policy import canonical_json
from tasks import tracking_rest as rest
from tasks.record import Record
from tasks.tracking_runs import (
    experiment_id,
    failed_unless_finished,
    finish_run,
    get_run,
    index,
    log_batch,
    metric_name,
    search_runs,
    start_run,
)


def log(  # noqa: PLR0917 - read aloud: on this server, of this experiment, for this budget, what was used
    url: str,
    experiment: str,
    budget: str,
    uses: Mapping[str, Record],
    cached: Mapping[str, bool],
    context: Mapping[str, str],
    *,
    figures: Mapping[str, float] | None = None,
    parent: str | None = None,
    cell: str = "",
) -> str:
    """Make sure that these results are logged once, whether their stages were computed now or long ago.

    Args:
        url: the tracking server.
        experiment: its name, and that of the MLflow experiment.
        budget: its name, and that of the run.
        uses: cell -> record of every stage run behind the figures, all known to the server.
        cached: cell -> whether it had been computed before.
        context: further tags (git.commit, git.dirty, policy.sha256, dataset.md5, prefect.flow_run_id).
        figures: what a user compares; by default every figure of every record as `<cell>.<figure>`.
        parent: run id of the sweep that had it computed first, if any.
        cell: what a sweep calls it.

    Returns:
        The run id, of an earlier run when the results are the same.

    Raises:
        TrackingUnavailable: no answer; the next run logs it.
    """
    runs = {metric_name(cell).replace(" ", "."): str(record.run_id) for cell, record in uses.items()}
    assert "None" not in runs.values()
    if figures is None:
        figures = {f"{cell}.{name}": value for cell, record in uses.items() for name, value in record.figures.items()}
    digest = _digest(experiment, f"{budget} {cell}".strip(), runs, figures)
    mlflow_experiment = experiment_id(url, experiment)
    known = search_runs(url, f"tags.`mixbit.uses_digest` = '{digest}'", [mlflow_experiment], limit=1)
    if known:
        return known[0].run_id
    tags = {"mixbit.experiment": experiment, "mixbit.budget": budget, "mixbit.uses_digest": digest}
    tags |= {"mixbit.cell": cell} if cell else {}
    tags |= {"mixbit.uses": index(runs)} | {f"uses.{cell}": run_id for cell, run_id in runs.items()}
    tags |= {f"{metric_name(cell).replace(' ', '.')}.cached": str(was).lower() for cell, was in cached.items()}
    tags |= {name: value for name, value in context.items() if value}
    run = start_run(url, mlflow_experiment, f"{budget} {cell}".strip(), tags, parent=parent)
    with failed_unless_finished(url, run.run_id):
        log_batch(url, run.run_id, {name.replace(" ", "."): value for name, value in figures.items()}, {})
        finish_run(url, run.run_id)
    return run.run_id


def attach(url: str, run_id: str, files: Mapping[str, Path]) -> None:
    """Lay files beside an experiment run (a report, sources that differ from the commit); the last ones stay.

    Raises:
        TrackingUnavailable: no answer.
    """
    root = rest.artifact_path(url, get_run(url, run_id).artifacts)
    for name, file in files.items():
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        rest.upload(url, f"{root}/{name}", file, sha256)


def _digest(experiment: str, budget: str, runs: Mapping[str, str], figures: Mapping[str, float]) -> str:
    content = {"experiment": experiment, "budget": budget, "uses": runs, "figures": figures, "parent": None}
    return hashlib.sha256(canonical_json(content)).hexdigest()

"""Effect `sweep_run`: one MLflow run per night of a sweep, the parent of what was computed in it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks import tracking_rest as rest
from tasks.experiment_run import attach
from tasks.tracking_runs import (
    TAG_CHARACTERS,
    Run,
    experiment_id,
    failed_unless_finished,
    finish_run,
    log_batch,
    search_runs,
    start_run,
)


@contextmanager
def night(url: str, sweep: str, tags: Mapping[str, str]) -> Iterator[str]:
    """The run of a night, FINISHED when its report is there; FAILED when the night breaks off.

    Raises:
        TrackingUnavailable: no answer.
    """
    began = time.strftime("%Y-%m-%d %H:%M")
    known = {"mixbit.sweep": sweep} | {name: value for name, value in tags.items() if value}
    run = start_run(url, experiment_id(url, sweep), f"night {began}", known)
    with failed_unless_finished(url, run.run_id):
        yield run.run_id


def close(
    url: str, run_id: str, figures: Mapping[str, float], files: Mapping[str, Path], tags: Mapping[str, str]
) -> None:
    """Say what the night came to, and that it has ended.

    Args:
        url: the tracking server.
        run_id: of the night.
        figures: of the night.
        files: to lie beside the run.
        tags: name -> value.

    Raises:
        TrackingUnavailable: no answer.
    """
    for key, value in tags.items():
        rest.post(url, "runs/set-tag", {"run_id": run_id, "key": key, "value": value[:TAG_CHARACTERS]})
    log_batch(url, run_id, figures, {})
    attach(url, run_id, files)
    finish_run(url, run_id)


def last_good_night(url: str, sweep: str) -> Run | None:
    """The night that ended last with every cell done and all gates held."""
    condition = f"tags.`mixbit.sweep` = '{sweep}' and tags.`mixbit.good` = 'true'"
    nights = search_runs(url, condition, [experiment_id(url, sweep)])
    return nights[-1] if nights else None

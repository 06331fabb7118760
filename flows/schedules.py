"""Schedules as Prefect deployments: one per file, executed by this machine's worker."""

import asyncio
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort

from flows.worker import pool_of
from flows.worker_process import MOST, ensure_pool
from mixbit.errors import MixbitError
from tasks.place import ROOT, state_dir

Overlap = Literal["skip", "wait"]
ENTRYPOINTS = {"sweep": "flows.sweep.sweep", "experiment": "flows.experiment.experiment"}
RULES = {"skip": ConcurrencyLimitStrategy.CANCEL_NEW, "wait": ConcurrencyLimitStrategy.ENQUEUE}
LOOKED_AT = 30
MISSED = {"Late", "Cancelled"}
When = CronSchedule | IntervalSchedule


@dataclass(frozen=True)
class Scheduled:
    """One schedule as the server knows it; times in ISO 8601.

    Attributes:
        name: of the sweep or the experiment.
        kind: sweep or experiment.
        file: what it runs.
        when: cron with its timezone, or an interval.
        paused: whether nothing is due meanwhile.
        next: when it is due next; empty while it is paused.
        last: (when, its state) of the run that was due last.
        missed: nights that were due and did not run: no worker was there, or the rule of overlaps dropped them.
    """

    name: str
    kind: str
    file: str
    when: str
    paused: bool
    next: str
    last: tuple[str, str] | None
    missed: tuple[str, ...]


def schedule(name: str, kind: str, file: Path, when: When, overlap: Overlap) -> None:
    """Make or change the schedule of a file."""
    with get_client(sync_client=True) as client:
        asyncio.run(_pool())
        client.create_deployment(
            client.create_flow_from_name(kind),
            name,
            entrypoint=ENTRYPOINTS[kind],
            path=str(ROOT),
            work_pool_name=pool_of(state_dir()),
            parameters={"file": str(file)},
            schedules=[DeploymentScheduleCreate(schedule=when, active=True)],
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=RULES[overlap]),
            enforce_parameter_schema=False,
            paused=False,
            job_variables={"command": f"{shlex.quote(sys.executable)} -m prefect.engine", "working_dir": str(ROOT)},
        )


async def _pool() -> None:
    async with get_client() as client:
        await ensure_pool(client, pool_of(state_dir()))


def schedules() -> list[Scheduled]:
    """Every schedule of this machine."""
    with get_client(sync_client=True) as client:
        return [_scheduled(client, one) for one in _own(client)]


def _own(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """Those that this machine's worker executes."""
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool_of(state_dir())]))
    return client.read_deployments(work_pool_filter=pool, sort=DeploymentSort.NAME_ASC, limit=MOST)


def set_paused(name: str, *, paused: bool) -> None:
    """Nothing is due while it is paused; nights that were due are not made up for.

    Raises:
        MixbitError: no such schedule.
    """
    with _found(name) as (client, one):
        client.update_deployment(one.id, DeploymentUpdate(paused=paused))


def remove(name: str) -> None:
    """Delete a schedule; what its nights made stays.

    Raises:
        MixbitError: no such schedule.
    """
    with _found(name) as (client, one):
        client.delete_deployment(one.id)


@contextmanager
def _found(name: str) -> Iterator[tuple[SyncPrefectClient, DeploymentResponse]]:
    with get_client(sync_client=True) as client:
        for one in _own(client):
            if one.name == name:
                yield client, one
                return
        known = ", ".join(one.name for one in _own(client))
    raise MixbitError("schedules", "no such schedule", expected=known or "none yet", got=name)


def _scheduled(client: SyncPrefectClient, one: DeploymentResponse) -> Scheduled:
    now = datetime.now(UTC)
    due = _runs(client, one, FlowRunSort.EXPECTED_START_TIME_DESC, before_=now)
    coming = _runs(client, one, FlowRunSort.EXPECTED_START_TIME_ASC, after_=now, limit=1)
    last = next((run for run in due if run.state_name not in MISSED | {"Scheduled"}), None)
    schedule = one.schedules[0].schedule if one.schedules else None
    return Scheduled(
        name=one.name,
        kind=next(kind for kind, place in ENTRYPOINTS.items() if place == one.entrypoint),
        file=str((one.parameters or {}).get("file", "")),
        when=words(schedule),
        paused=one.paused,
        next="" if one.paused or not coming else _time(_due(coming[0])),
        last=(_time(_due(last)), str(last.state_name).lower()) if last is not None else None,
        missed=tuple(_time(_due(run)) for run in due if run.state_name in MISSED),
    )


def _runs(
    client: SyncPrefectClient, one: DeploymentResponse, sort: FlowRunSort, limit: int = LOOKED_AT, **when: datetime
) -> list[FlowRun]:
    expected = FlowRunFilterExpectedStartTime(**when)
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[one.id])),
        flow_run_filter=FlowRunFilter(expected_start_time=expected),
        sort=sort,
        limit=limit,
    )


def words(schedule: Any) -> str:
    """A schedule as the user wrote it."""
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval / timedelta(seconds=1):.0f} s"
    return "" if schedule is None else str(schedule)


def _due(run: FlowRun) -> datetime:
    assert run.expected_start_time is not None
    return run.expected_start_time


def _time(when: datetime) -> str:
    return when.astimezone().isoformat(timespec="seconds")

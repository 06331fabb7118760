"""The program that `mixbit up` starts as this machine's worker: it takes what is due from the Prefect server.

One night at a time, because nights measure: two at once would disturb each other's figures.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Any

import psutil
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

HEARTBEAT_S = 10
MOST = 200  # of one answer


async def serve(pool: str) -> None:
    """Be online until stopped."""
    async with get_client() as client:
        await ensure_pool(client, pool)
        await _end_orphans(client, pool)
    worker = ProcessWorker(
        work_pool_name=pool,
        name=socket.gethostname(),
        limit=1,
        prefetch_seconds=1,
        heartbeat_interval_seconds=HEARTBEAT_S,
    )
    await worker.start(printer=lambda *_: None)


async def ensure_pool(client: PrefectClient, name: str) -> None:
    """Make the pool of nights where it is not there yet."""
    template = ProcessWorker.get_default_base_job_template()
    try:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        return


async def _end_orphans(client: PrefectClient, pool: str) -> None:
    """A night that ran here when the machine went down is not running any more, and must not hold back the next."""
    states = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    found = await client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        sort=FlowRunSort.ID_DESC,
        limit=MOST,
    )
    for run in found:
        if _is_orphan(run):
            state: Any = Crashed(message="the machine or its worker went down during this night")
            await client.set_flow_run_state(run.id, state, force=True)


def _is_orphan(run: FlowRun) -> bool:
    pid = (run.infrastructure_pid or "").rpartition(":")[2]
    if not pid.isdigit():
        return True  # the pool is this machine's alone, and what it had begun to start is not there any more
    try:
        return str(run.id) not in psutil.Process(int(pid)).environ().get("PREFECT__FLOW_RUN_ID", "")
    except psutil.Error:
        return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))

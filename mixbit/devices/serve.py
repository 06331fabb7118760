"""Joins a Prefect server as a device: makes its pool, deployment and rule for lost jobs, announces it, runs a worker.

The only module of mixbit that imports Prefect. `command.py` sets Prefect's environment before.
"""

import asyncio
import fcntl
import json
import os
import shlex
import signal
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import __version__ as prefect_version
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import State, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.workers.process import ProcessWorker

from mixbit.devices.backend import runtime_words
from mixbit.devices.blobs import Blobs
from mixbit.devices.job import own_fingerprint, run_job
from mixbit.devices.known import FLOW, LOST, Announcement, resource
from mixbit.devices.parent import end_with_parent
from mixbit.devices.server import UNDER_WAY, Server
from mixbit.devices.stay import JOB, await_answer, say, stay_online
from mixbit.errors import MixbitError

ENTRYPOINT = "mixbit.devices.serve.measure"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
# Three heartbeats of a job, of which one is due every 30 s; a worker that misses three of its own is offline.
LOST_S, WORKER_S = 90, 10
PATIENT_S = 240.0  # for which a job that has its answer waits for a server that is away


@flow(name=FLOW, persist_result=False, validate_parameters=False, log_prints=False)
def measure(job: dict[str, Any]) -> State[Any]:
    """One job; its answer goes to the server as JSON, never as a result on this disk."""
    end_with_parent()
    blobs = Blobs(Path(os.environ["MIXBIT_DEVICE_FOLDER"]), int(os.environ["MIXBIT_DEVICE_CACHE_BYTES"]))
    began_s = time.monotonic()
    answer = run_job(job, blobs)
    print(f"{JOB}{answer.get('says', 'measured')} ({time.monotonic() - began_s:.0f} s)", flush=True)
    await_answer(_health(), PATIENT_S)
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactCreate(type="json", data=json.dumps(answer, allow_nan=False), flow_run_id=uuid.UUID(flow_run.id))
        )
    if answer.get("fault") == "fingerprint":
        asyncio.run(_announced(os.environ["MIXBIT_DEVICE_NAME"]))
    return Failed(message=str(answer["says"])) if "fault" in answer else Completed(message="measured")


def serve(name: str, folder: Path) -> None:
    """Be online until stopped.

    Raises:
        MixbitError: the name is taken by another machine, this one serves already, or the versions do not fit.
    """
    os.environ["MIXBIT_DEVICE_NAME"] = name
    with (folder / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MixbitError(f"device {name}", "is served from this folder already", hint="Stop that first") from None
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts with &
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        asyncio.run(_served(name, _identity(folder)))


async def _served(name: str, identity: str) -> None:
    worker_name = f"{name}-{identity}"
    _require_free(name, worker_name)
    await stay_online(lambda: _worker(name, worker_name), _health())


def _health() -> str:
    return f"{os.environ['PREFECT_API_URL']}/health"


async def _worker(name: str, worker_name: str) -> ProcessWorker:
    """Join and be ready. A worker that has just begun runs no job: what the server takes for under way was lost."""
    announced = await join(name)
    server = Server(os.environ["PREFECT_API_URL"])
    for job in server.jobs(name, limit=200):
        if job.state in UNDER_WAY:
            server.lose(job)
    found = announced.fingerprint
    say(f"{name} joined: {found['arch']}, {found['cpu']}, {runtime_words(found)}. Ctrl-C ends it")
    say(f"on the host: mixbit devices add {name}")
    return ProcessWorker(
        work_pool_name=resource(name),
        name=worker_name,
        limit=1,
        prefetch_seconds=1,
        heartbeat_interval_seconds=WORKER_S,
    )


async def join(name: str) -> Announcement:
    """Make on the server what is not there yet, and announce this device.

    Raises:
        MixbitError: the server is of another version, or refuses.
    """
    try:
        async with get_client() as client:
            await _require_version(client)
            await _joined(client, name)
        return await _announced(name)
    except PrefectHTTPStatusError as error:
        raise MixbitError(f"device {name}", f"the server refuses it: {str(error).splitlines()[0]}") from None


async def _require_version(client: PrefectClient) -> None:
    there = await client.api_version()
    if there != prefect_version:
        hint = f"Install prefect-client=={there} here"
        raise MixbitError(
            "prefect-client", "not of the server's version", expected=there, got=prefect_version, hint=hint
        )


def _require_free(name: str, worker_name: str) -> None:
    """Two machines of one name would take each other's jobs."""
    if Server(os.environ["PREFECT_API_URL"]).is_online(name, besides=worker_name):
        hint = "Choose another --name, or wait half a minute if that machine was just switched off"
        raise MixbitError(f"device {name}", "another machine of this name is online", hint=hint)


async def _joined(client: PrefectClient, name: str) -> None:
    """Pool with room for one job, deployment, and the rule that ends lost jobs; made where they are not there."""
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=resource(name), type="process", base_job_template=template, concurrency_limit=1)
    try:
        await client.create_work_pool(pool)
    except ObjectAlreadyExists:
        await client.update_work_pool(resource(name), WorkPoolUpdate(concurrency_limit=1, is_paused=False))
    flow_id = await client.create_flow_from_name(FLOW)
    # A command of our own: to look for a project to install costs Prefect's worker ten seconds before each job.
    command = f"{shlex.quote(sys.executable)} -m prefect.engine"
    deployment_id = await client.create_deployment(
        flow_id,
        name,
        entrypoint=ENTRYPOINT,
        work_pool_name=resource(name),
        enforce_parameter_schema=False,
        job_variables={"command": command},
    )
    if not await client.read_automations_by_name(resource(name)):
        await client.create_automation(_rule(name, deployment_id))


def _rule(name: str, deployment_id: uuid.UUID) -> AutomationCore:
    """A job that gives no sign of life any more has crashed, or it would hold the one place for ever."""
    return AutomationCore(
        name=resource(name),
        description=f"A job of the device {name} without a heartbeat for {LOST_S} s is lost",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDS},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.id": f"prefect.deployment.{deployment_id}",
                "prefect.resource.role": "deployment",
            },
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=LOST_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"{LOST} (no sign of life)")],
    )


async def _announced(name: str) -> Announcement:
    announced = Announcement(own_fingerprint(), datetime.now(UTC).isoformat(timespec="seconds"))
    async with get_client() as client:
        await _set_variable(client, resource(name), announced.to_json())
    return announced


async def _set_variable(client: PrefectClient, name: str, value: dict[str, Any]) -> None:
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    if await client.read_variable_by_name(name) is None:
        with suppress(ObjectAlreadyExists):
            await client.create_variable(VariableCreate(name=name, value=value))
            return
    await client.update_variable(VariableUpdate(name=name, value=value))


def _identity(folder: Path) -> str:
    """A random name of this machine, the same after a restart."""
    path = folder / "identity"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text().strip()

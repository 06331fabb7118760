"""This machine's worker as a background process: started by `mixbit up`, stopped by `mixbit down`."""

import json
import os
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

from flows.server_memory import lock
from flows.server_process import ServerProcess, is_alive, start, stop
from flows.servers import Servers, Status
from mixbit.telemetry import quiet_environment
from tasks.place import ROOT
from tasks.store import write_atomic

MEMORY = "worker.json"


def ensure_worker(servers: Servers) -> int:
    """The pid of this machine's worker, started where it does not run."""
    with lock(servers.state):
        known = remembered(servers.state)
        if known is not None and is_alive(known):
            return known.pid
        folder, log = servers.state / "worker", servers.state / "logs" / "worker.log"
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(exist_ok=True)
        process = start(program(servers.state), _environment(servers), uuid.uuid4().hex, folder, log)
        write_atomic(servers.state / MEMORY, json.dumps(asdict(process)).encode())
        return process.pid


def program(state: Path) -> list[str]:
    """The worker's command line."""
    return [sys.executable, "-m", "flows.worker_process", pool_of(state)]


def _environment(servers: Servers) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    own = {"PYTHONPATH": path, "MIXBIT_HOME": str(servers.state), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet_environment(os.environ), **servers.environment(), **own}


def remembered(state: Path) -> ServerProcess | None:
    """The worker that was started last, whether it lives or not."""
    try:
        return ServerProcess(**json.loads((state / MEMORY).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def worker_status(state: Path) -> Status:
    """As of the servers."""
    known = remembered(state)
    alive = known is not None and is_alive(known)
    return Status("worker", "running" if alive else "stopped", None, known.pid if known and alive else None, alive)


def pool_of(state: Path) -> str:
    """The pool that only this machine's worker serves: a night names files of this machine."""
    path = state / "worker" / "identity"
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex[:8].encode())
    return f"mixbit-{path.read_text()}"


def stop_worker(state: Path) -> bool:
    """Stop this machine's worker, and the night that it runs; whether there was one."""
    known = remembered(state)
    return known is not None and stop(known)

"""The two local servers: `mixbit up`, `down`, `status`, and `ensure` for a run that finds nothing answering."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.server_commands import MLFLOW, PREFECT, api_url, command, environment, own_prefect, probe
from flows.server_memory import Known, lock, read, write
from flows.server_process import LOOPBACK, TICK_S, free_port, is_alive, last_line, start, stop
from mixbit.errors import MisuseError, MixbitError
from tasks.store import disk_faults

NAMES = (PREFECT, MLFLOW)
URL_VARIABLES = {PREFECT: "MIXBIT_PREFECT_URL", MLFLOW: "MIXBIT_MLFLOW_URL"}
START_S = 180.0
ATTEMPTS = 3
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - refused
# A flow's own requests: tried for 14 s, not 62, when the server goes away. Its inner log would fill the terminal then.
BOUNDED = {"PREFECT_CLIENT_MAX_RETRIES": "3", "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL"}


@dataclass(frozen=True)
class Servers:
    """Where the two servers answer. `prefect_url` and `mlflow_url` are also the addresses of their pages."""

    prefect_url: str
    mlflow_url: str
    state: Path

    @property
    def prefect_api_url(self) -> str:
        """What Prefect calls PREFECT_API_URL."""
        return api_url(self.prefect_url)

    def environment(self) -> dict[str, str]:
        """What a flow run needs, to be set before Prefect is imported; the user's own profile stays untouched."""
        (self.state / PREFECT).mkdir(parents=True, exist_ok=True)
        urls = {"PREFECT_API_URL": self.prefect_api_url, "MLFLOW_TRACKING_URI": self.mlflow_url}
        bounded = {name: os.environ.get(name, value) for name, value in BOUNDED.items()}
        return own_prefect(self.state / PREFECT) | urls | bounded


@dataclass(frozen=True)
class Status:
    """What is known of one server; `pid` is None for a team's server and for a stopped one."""

    name: str
    state: str
    url: str | None
    pid: int | None
    healthy: bool


def ensure(state: Path, names: Sequence[str] = NAMES, bind: str | None = None) -> Servers:
    """The servers' addresses; whatever does not run is started first.

    A team's URL ($MIXBIT_PREFECT_URL, $MIXBIT_MLFLOW_URL) is only checked, never started.

    Args:
        state: the state folder.
        names: which servers.
        bind: the address of this machine to answer on, remembered; None for the last one, loopback at first.

    Raises:
        MisuseError: `bind` is none of this machine's addresses, or they run on another one.
        MixbitError: a server can't be reached, or does not come up.
    """
    for name in names:
        _check_team(name)
    local = [name for name in names if team_url(name) is None]
    known = read(state)
    if bind is not None:
        _check_bind(bind, {name: known[name] for name in local if name in known})
    if not all(_is_up(name, known.get(name)) for name in local):
        with disk_faults("servers"), lock(state):
            known = _start_missing(state, local, bind)
    urls = {name: team_url(name) or (known[name].url if name in known else "") for name in NAMES}
    return Servers(urls[PREFECT], urls[MLFLOW], state)


def known_mlflow_url(state: Path) -> str | None:
    """Where the tracking server is, without starting or asking it; None when none runs."""
    return known_url(MLFLOW, state)


def known_url(name: str, state: Path) -> str | None:
    """Where a server is, without starting or asking it; None when none runs."""
    server = read(state).get(name)
    local = server.url if server is not None and server.process is not None and is_alive(server.process) else None
    return team_url(name) or local


def stop_all(state: Path) -> list[str]:
    """Stop what we started, and nothing else; the names of what ran."""
    if not state.is_dir():
        return []
    with lock(state):
        known = read(state)
        stopped = [name for name, server in known.items() if server.process is not None and stop(server.process)]
        if known:
            write(state, {name: replace(server, process=None) for name, server in known.items()})
    return stopped


def look(state: Path) -> list[Status]:
    """The state of both servers."""
    return [_status(name, read(state).get(name)) for name in NAMES]


def team_url(name: str) -> str | None:
    """The URL that the environment names for a server, without a trailing slash or /api."""
    url = os.environ.get(URL_VARIABLES[name], "").strip().rstrip("/")
    return url.removesuffix("/api") or None


def _status(name: str, server: Known | None) -> Status:
    if (url := team_url(name)) is not None:
        fault = probe(name, url)
        return Status(name, f"unreachable ({fault})" if fault else "team", url, None, fault is None)
    if server is None or server.process is None:
        return Status(name, "stopped", None, None, healthy=False)
    if not is_alive(server.process):
        return Status(name, "died", None, None, healthy=False)
    healthy = probe(name, server.url) is None
    return Status(name, "running" if healthy else "not answering", server.url, server.process.pid, healthy)


def _check_team(name: str) -> None:
    url = team_url(name)
    fault = probe(name, url) if url else None
    if fault:
        variable = URL_VARIABLES[name]
        hint = f"Check ${variable}, or unset it to run a local server"
        raise MixbitError(url or "", f"the {name} server does not answer ({fault})", hint=hint)


def _is_up(name: str, server: Known | None) -> bool:
    return (
        server is not None and server.process is not None and is_alive(server.process) and not probe(name, server.url)
    )


def _check_bind(bind: str, known: Mapping[str, Known]) -> None:
    hint = "Such as the address that devices reach this machine by; they get it in every job"
    if bind in EVERYWHERE:
        raise MisuseError(
            "--bind", "not one address", expected="an address or name of this machine", got=bind, hint=hint
        )
    try:
        free_port(None, bind)
    except OSError:
        raise MisuseError("--bind", "not an address of this machine", got=bind, hint=hint) from None
    other = next((one.host for name, one in known.items() if one.host != bind and _is_up(name, one)), None)
    if other is not None:
        raise MisuseError("--bind", f"the servers run on {other}", hint="`mixbit down` first; their data stay")


def _start_missing(state: Path, names: Sequence[str], bind: str | None) -> dict[str, Known]:
    """Under the lock, where another command may have started them meanwhile."""
    known = read(state)
    missing = [name for name in names if not _is_up(name, known.get(name))]
    for name in missing:
        known[name] = _start(state, name, known.get(name), bind)
        write(state, known)
    try:
        for name in missing:
            known[name] = _await(state, name, known[name])
    except BaseException:
        for name in missing:
            _stop(known.get(name))
        write(
            state,
            {name: replace(server, process=None) if name in missing else server for name, server in known.items()},
        )
        raise
    write(state, known)
    return known


def _start(state: Path, name: str, before: Known | None, bind: str | None = None) -> Known:
    _stop(before)  # what a killed server left behind, or one that no longer answers
    host = bind or (before.host if before else LOOPBACK)
    port = free_port(before.port if before else None, host)
    folder, logs = state / name, state / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    logs.mkdir(exist_ok=True)
    process = start(
        command(name, port, host), environment(name, folder), uuid.uuid4().hex, folder, logs / f"{name}.log"
    )
    return Known(port, process, host)


def _stop(server: Known | None) -> None:
    if server is not None and server.process is not None:
        stop(server.process)


def _await(state: Path, name: str, server: Known) -> Known:
    """Wait until it answers; a port that someone else took meanwhile is changed.

    Raises:
        MixbitError: it ended, or the deadline passed.
    """
    log = state / "logs" / f"{name}.log"
    end = time.monotonic() + START_S
    for _ in range(ATTEMPTS):
        assert server.process is not None
        while is_alive(server.process):
            if probe(name, server.url) is None and is_alive(server.process):
                return server
            if time.monotonic() > end:
                raise MixbitError(
                    name, f"the server did not answer within {START_S:.0f} s: {last_line(log)}", hint=f"See {log}"
                )
            time.sleep(TICK_S)
        if free_port(server.port, server.host) == server.port:
            break
        server = _start(state, name, server)
    raise MixbitError(name, f"the server ended while starting: {last_line(log)}", hint=f"See {log}")

"""One background server: started in a session of its own, known by pid, start time and a token, stopped as a group."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TOKEN = "MIXBIT_SERVER_TOKEN"  # noqa: S105 - the name of a variable
LOOPBACK = "127.0.0.1"
STOP_S = 10.0
TICK_S = 0.05
# The shell ends at once, so the server is nobody's child: no zombie stays, no caller waits for it.
DETACH = 'cd "$1" && log=$2 && shift 2 && { "$@" >"$log" 2>&1 </dev/null & echo $!; }'


@dataclass(frozen=True)
class ServerProcess:
    """A process we started. A recycled pid has another start time and never our token."""

    pid: int
    group: int
    started: float
    token: str


def start(command: Sequence[str], environment: Mapping[str, str], token: str, folder: Path, log: Path) -> ServerProcess:
    """Start `command` in `folder`, detached from terminal and caller; its output goes to `log`."""
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    shell = ["/bin/sh", "-c", DETACH, "sh", str(folder), str(log), *command]
    environment = {**environment, TOKEN: token}
    ran = subprocess.run(shell, env=environment, start_new_session=True, check=True, capture_output=True, text=True)
    pid = int(ran.stdout)
    try:
        return ServerProcess(pid, os.getpgid(pid), psutil.Process(pid).create_time(), token)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return ServerProcess(pid, pid, 0.0, token)


def is_alive(process: ServerProcess) -> bool:
    """Whether this very process runs; a zombie does not."""
    try:
        found = psutil.Process(process.pid)
        return bool(abs(found.create_time() - process.started) < 2 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def members(process: ServerProcess) -> list[psutil.Process]:
    """Every running process of the group that carries our token, so also orphans of a killed leader."""
    return [found for found in psutil.process_iter() if _belongs(found, process)]


def _belongs(found: psutil.Process, process: ServerProcess) -> bool:
    try:
        if os.getpgid(found.pid) != process.group or found.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(found.environ().get(TOKEN) == process.token)
    except (psutil.Error, ProcessLookupError, PermissionError):
        return False


def stop(process: ServerProcess, grace_s: float = STOP_S) -> bool:
    """TERM to the whole group, KILL after `grace_s`; returns when all are gone. Whether anything ran."""
    found = members(process)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for member in members(process):
            try:
                member.send_signal(signal_number)
            except psutil.NoSuchProcess:
                continue
        if wait_until(lambda: not any(map(_runs, found)) and not members(process), grace_s):
            break
    return bool(found)


def _runs(found: psutil.Process) -> bool:
    """A process that ends loses its environment, and so its token, before it lets go of its port."""
    try:
        return bool(found.is_running() and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition; whether it came true in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(TICK_S)
    return True


def free_port(wanted: int | None, host: str = LOOPBACK) -> int:
    """The wanted port of an address of this machine where it is free, else one that the system picks."""
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {host}")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    if not log.exists():
        return "it wrote no log"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")

"""One job on a device: fetch its files, measure, answer in JSON; stopped as a whole at its deadline.

The job is a process group of its own: this program, and the measuring programs that it starts. Nothing of it outlives
its deadline, its cancellation or the process that asked for it.

Run as a program: the job's JSON on standard input, the answer's JSON on standard output.
"""

import ast
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mixbit.devices.backend import DEFAULT
from mixbit.devices.blobs import Blobs, DownloadRefused, Source
from mixbit.devices.device import MODEL, Request
from mixbit.devices.fingerprint import fingerprint, fingerprint_sha256
from mixbit.devices.known import JOB_FORMAT, LOCAL
from mixbit.devices.local import LocalDevice
from mixbit.devices.parent import end_with_parent
from mixbit.errors import MixbitError

BACKEND = "MIXBIT_DEVICE_BACKEND"
# What moves a job here and back changes no figure.
_PLUMBING = {"blobs", "command", "job", "known", "remote", "serve", "server", "stay"}


def own_fingerprint() -> dict[str, str]:
    """Of this machine and the backend it serves with, with a digest of the programs that measure."""
    return fingerprint(own_backend()) | {"measured_by": _programs_sha256(own_backend())}


def own_backend() -> str:
    """What `mixbit-device serve --backend` says; jobs inherit it."""
    return os.environ.get(BACKEND, DEFAULT)


def run_job(job: dict[str, Any], blobs: Blobs) -> dict[str, Any]:
    """Do a job within its deadline.

    Args:
        job: format, what (a method of `LocalDevice`), request (`models`: name -> sha256), files (sha256 -> url,
            size_bytes), fingerprint_sha256, deadline_s.
        blobs: the device's files.

    Returns:
        {"figures"} of that method, or {"fault": its kind, "says": one line}. No path of this disk in it.
    """
    command = [sys.executable, "-m", "mixbit.devices.job", str(blobs.folder), str(blobs.limit_bytes)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)  # type: ignore[call-overload]
    try:
        out, said = process.communicate(json.dumps(job), timeout=float(job["deadline_s"]))
    except subprocess.TimeoutExpired:
        _end(process)
        return fault("deadline", f"the job was stopped at its deadline of {job['deadline_s']:.0f} s")
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return fault("died", f"the measuring process died: {last}")
    return dict(json.loads(out))


def fault(kind: str, says: object) -> dict[str, Any]:
    """An answer without figures."""
    return {"fault": kind, "says": " ".join(str(says).split())}


def _end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # it leads its group and was not waited for, so the id is still its own
    process.communicate()


def _answer(job: dict[str, Any], blobs: Blobs) -> dict[str, Any]:
    if job.get("format") != JOB_FORMAT:
        return fault("format", f"this device does jobs of format {JOB_FORMAT}: install the same version of mixbit here")
    if fingerprint_sha256(own_fingerprint()) != job["fingerprint_sha256"]:
        return fault("fingerprint", "the device is not any more what it announced (governor, runtime or programs)")
    sources = {sha256: Source(**source) for sha256, source in job["files"].items()}
    named: dict[str, str] = {}
    try:
        files = blobs.fetch(sources)
        models = {name: str(files[sha256]) for name, sha256 in job["request"]["models"].items()}
        named = {path: f"the file {name}" for name, path in reversed(models.items())}
        return {"figures": _figures(job["what"], Request(**{**job["request"], "models": models}))}
    except DownloadRefused as error:
        return fault("download", error)
    except MixbitError as error:
        line = functools.reduce(lambda line, path: line.replace(path, named[path]), named, str(error))
        return fault("failed", line.removeprefix(f"{LOCAL}: "))


def _figures(what: str, request: Request) -> dict[str, Any]:
    device = LocalDevice(own_backend())
    if what == "executed":
        return device.executed(request.models[MODEL], request.threads)
    measure = {"profile": device.profile, "compare": device.compare, "kernel_times": device.kernel_times}[what]
    return dict(measure(request))


@functools.cache
def _programs_sha256(backend: str) -> str:
    """Of the shared programs and of one backend; comments and formatting do not count."""
    here = Path(__file__).parent
    paths = [path for path in sorted(here.glob("*.py")) if path.stem not in _PLUMBING]
    paths.append(here / "backends" / f"{backend}.py")
    code = "\n".join(ast.dump(ast.parse(path.read_bytes())) for path in paths)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _main(folder: str, limit_bytes: str) -> None:
    end_with_parent()
    json.dump(_answer(json.load(sys.stdin), Blobs(Path(folder), int(limit_bytes))), sys.stdout, allow_nan=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])

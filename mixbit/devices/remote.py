"""A device on another machine: its files go through the artifact server, its job through the server it has joined."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbit.devices.blobs import sha256_of
from mixbit.devices.device import MODEL, Request
from mixbit.devices.fingerprint import fingerprint_sha256
from mixbit.devices.known import JOB_FORMAT, LOST, Announcement, write
from mixbit.devices.server import ENDED, PATIENT_S, Job, Server
from mixbit.errors import MixbitError
from mixbit.http import mlflow_credentials, opener

POLL_S, LOOK_S, ANSWER_S, STOP_S = 0.5, 5.0, 60.0, 20.0
# A job is allowed what its measurements are, and this for loading, memory, kernels and the download.
SLACK_S = 240.0
# After its deadline a device has this long to say so: it stops the job itself, or the server finds it dead.
GRACE_S = 150.0
# Looks without it until a device is gone: a server that was started again takes all for offline, for some seconds.
GONE = 3
# A server that was silent for longer was away; then an answer may come this late.
AWAY_S, LATE_S = 5.0, 60.0
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
FOLDER = "mixbit-devices"


class DeviceFault(MixbitError):  # noqa: N818 - what it says, not what it is
    """A device that did not deliver; everything but its own figures can be had without it."""


@dataclass
class RemoteDevice:
    """A device that was added with `mixbit devices add`; `announced` is what its figures are declared to depend on."""

    name: str
    announced: Announcement

    def fingerprint(self) -> dict[str, str]:
        """As announced, read from this machine's disk; a job is refused by a device that has changed since."""
        return dict(self.announced.fingerprint)

    def profile(self, request: Request) -> dict[str, Any]:
        """The figures of `LocalDevice.profile`, measured there by the same programs.

        Raises:
            DeviceFault: offline, lost on the way, over its deadline, or its runtime refuses a file.
            ServerAway: a server does not answer.
        """
        return self._asked("profile", request)

    def compare(self, request: Request) -> dict[str, Any]:
        """The figures of `LocalDevice.compare`; raises as `profile`."""
        return self._asked("compare", request)

    def kernel_times(self, request: Request) -> dict[str, dict[str, float]]:
        """The figures of `LocalDevice.kernel_times`; raises as `profile`."""
        return self._asked("kernel_times", request)

    def executed(self, path: str, threads: int) -> dict[str, dict[str, Any]]:
        """The figures of `LocalDevice.executed`; raises as `profile`."""
        return self._asked("executed", Request({MODEL: path}, (), threads=threads))

    def _asked(self, what: str, request: Request) -> dict[str, Any]:
        files = {name: Path(path) for name, path in request.models.items()}
        names = {name: sha256_of(path) for name, path in files.items()}
        contents = {names[name]: path for name, path in files.items()}
        wanted = request.to_json() | {"models": names}
        answer: dict[str, Any] = {}
        for anew in (False, True):
            job = self._job(what, wanted, offered(contents, anew=anew), deadline_s=2 * request.limit_s + SLACK_S)
            answer = self._done(job)
            if answer.get("fault") != "download" and not self._has_come_back(answer):
                break
        if answer.get("fault") == "fingerprint":
            refresh(self.name, server_of_environment())
        if "fault" in answer:
            raise DeviceFault(f"device {self.name}", answer["says"], hint=_HINTS.get(answer["fault"]))
        return dict(answer["figures"])

    def await_online(self, wait_s: float, tell: Callable[[str], object]) -> None:
        """Return as soon as the device is online.

        Raises:
            DeviceFault: it is not, for `wait_s` seconds.
        """
        server, end, told = server_of_environment(), time.monotonic() + wait_s, False
        while not server.is_online(self.name, within_s=PATIENT_S):
            if time.monotonic() >= end:
                raise DeviceFault(f"device {self.name}", f"offline, waited {wait_s:g} s", hint=_OFFLINE)
            if not told:
                tell(f"waits for {self.name} to come online, at most {wait_s:g} s")
                told = True
            time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))

    def _job(self, what: str, request: dict[str, Any], files: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        digest = fingerprint_sha256(self.fingerprint())
        job = {"format": JOB_FORMAT, "what": what, "request": request, "files": files}
        return {**job, "fingerprint_sha256": digest, "deadline_s": deadline_s}

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        """Queue the job and wait for its answer; never leave it behind."""
        server = server_of_environment()
        job_id = server.start(self.name, job)
        try:
            ended, silence_s = self._ended(server, job_id, float(job["deadline_s"]))
            lost = ended.message.startswith(LOST)
            # A server that was away takes a job for lost whose signs of life it missed.
            answer = _answer(server, job_id, LATE_S if lost and silence_s > AWAY_S else 0.0)
        except BaseException:
            _stop_quietly(server, job_id)
            raise
        what = f"the job ended as {ended.state.lower()}: {ended.message or 'no message'}"
        return answer or {"fault": "lost" if lost else "ended", "says": what}

    def _has_come_back(self, answer: dict[str, Any]) -> bool:
        return answer.get("fault") == "lost" and server_of_environment().is_online(self.name, within_s=PATIENT_S)

    def _ended(self, server: Server, job_id: str, deadline_s: float) -> tuple[Job, float]:
        """The job when it has ended, and the longest time that the server was silent."""
        ran_since: float | None = None
        silence_s = 0.0
        looked, unseen = time.monotonic(), 0
        while True:
            asked = time.monotonic()
            job = server.job(job_id)
            now = time.monotonic()
            silence_s = max(silence_s, now - asked)
            if job.state in ENDED:
                return job, silence_s
            ran_since = ran_since or (now if job.state == "RUNNING" else None)
            if ran_since is not None and now > ran_since + deadline_s + GRACE_S:
                raise DeviceFault(f"device {self.name}", f"no answer {GRACE_S:.0f} s after the job's deadline")
            if ran_since is None and now > looked + LOOK_S:
                unseen = 0 if server.is_online(self.name, within_s=PATIENT_S) else unseen + 1
                if unseen == GONE:
                    # A job that waits behind another one waits; behind a device that has gone it would wait for ever.
                    raise DeviceFault(f"device {self.name}", "went offline before it began the job", hint=_OFFLINE)
                looked = time.monotonic()
            time.sleep(POLL_S)


_OFFLINE = "Start `mixbit-device serve` there and run the same command again: only its figures are missing"
_HINTS = dict.fromkeys(("lost", "ended"), "Run the same command again: only its figures are missing") | {
    "fingerprint": "What it announces now is noted; run the same command again",
    "deadline": "Is the device busy with something else? Run the same command again",
    "format": "Both sides need the same version of mixbit",
}


def server_of_environment() -> Server:
    """The server that a run works with.

    Raises:
        MixbitError: none is named.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise MixbitError("devices", "no server is named that devices could have joined", hint="Start one: `mixbit up`")
    return Server(url)


def refresh(name: str, server: Server) -> Announcement | None:
    """Note what a device announces now; None when it never was online there."""
    announced = server.announcement(name)
    if announced is not None:
        write(name, announced)
    return announced


def offered(files: dict[str, Path], *, anew: bool) -> dict[str, Any]:
    """Files by sha256, laid where a device can fetch them; sha256 -> url, size_bytes.

    Args:
        files: sha256 -> file.
        anew: send again what is there already: a device found it cut or altered.

    Raises:
        DeviceFault: the artifact server does not take them.
    """
    url = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not url:
        raise MixbitError("devices", "no artifact server is named for the files", hint="Start one: `mixbit up`")
    there = {} if anew else _listed(url)
    sources = {}
    for sha256, path in files.items():
        size_bytes = path.stat().st_size
        address = f"{url}{ARTIFACTS}{FOLDER}/{sha256}"
        if there.get(sha256) != size_bytes:
            with path.open("rb") as body:
                _send(url, "PUT", address, body, {"Content-Length": str(size_bytes)})
        sources[sha256] = {"url": address, "size_bytes": size_bytes}
    return sources


def _listed(url: str) -> dict[str, int]:
    found = json.loads(_send(url, "GET", f"{url}{ARTIFACTS.rstrip('/')}?path={FOLDER}"))
    return {Path(one["path"]).name: int(one.get("file_size") or -1) for one in found.get("files", [])}


def _send(url: str, method: str, address: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    sent = {"Content-Type": "application/octet-stream", **(headers or {}), **mlflow_credentials()}
    try:
        request = urllib.request.Request(address, data=body, method=method, headers=sent)  # noqa: S310 - a server's
        with opener(url).open(request, timeout=ANSWER_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise DeviceFault(url, f"the artifact server answers HTTP {error.code} to {method} {address}") from None
    except OSError as error:
        cause = getattr(error, "reason", None) or error
        raise DeviceFault(
            url, f"the artifact server does not answer ({cause})", hint="Is it up? `mixbit status`"
        ) from None


def _answer(server: Server, job_id: str, late_s: float) -> dict[str, Any] | None:
    end = time.monotonic() + late_s
    while (answer := server.answer(job_id)) is None and time.monotonic() < end:
        time.sleep(POLL_S)
    return answer


def _stop_quietly(server: Server, job_id: str) -> None:
    try:
        server.stop(server.job(job_id, within_s=STOP_S))
    except MixbitError:
        return  # the job stops at its own deadline

"""What a host asks of the server that devices are joined to: a job queued, its state, its answer, who is online.

Plain HTTP, Prefect's REST interface: importing its client takes longer than all of these requests.
https://docs.prefect.io/v3/api-ref/rest-api
"""

import http.client
import json
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

from mixbit.devices.known import FLOW, LOST, Announcement, resource
from mixbit.errors import MixbitError
from mixbit.http import opener, prefect_credentials

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
UNDER_WAY = {"PENDING", "RUNNING", "CANCELLING", "PAUSED"}
# What a run asks is worth waiting for: a server on SQLite can be silent for a minute when several write at once.
RETRY_S, PATIENT_S, ANSWER_S = 40.0, 180.0, 15.0
BUSY = {429, 500, 502, 503, 504}


class ServerAway(MixbitError):  # noqa: N818 - what it says, not what it is
    """The server that devices are joined to does not answer."""


@dataclass(frozen=True)
class Job:
    """A job as the server knows it. `state` is the type, in capitals; `took_s` and `began` are of its run."""

    job_id: str
    state: str
    message: str = ""
    began: str = ""
    took_s: float = 0.0


@dataclass(frozen=True)
class Server:
    """Where devices are joined; `api_url` ends in /api.

    Raises:
        ServerAway: from every method, when there is no answer.
        MixbitError: from every method, when it refuses.
    """

    api_url: str

    def announcement(self, name: str) -> Announcement | None:
        """What a device said of itself when it came online last; None when it never did."""
        found = self._ask("GET", f"/variables/name/{resource(name)}")
        return None if found is None else Announcement.from_json(name, found["value"])

    def announced(self) -> list[str]:
        """Names of all devices that ever were online here."""
        prefix = f"{FLOW}-"
        found = self._ask("POST", "/variables/filter", {"variables": {"name": {"like_": prefix}}, "limit": 200}) or []
        return sorted(one["name"].removeprefix(prefix) for one in found if one["name"].startswith(prefix))

    def is_online(self, name: str, besides: str = "", within_s: float = RETRY_S) -> bool:
        """Whether a worker of the device, another than `besides`, has given a sign of life within half a minute."""
        found = self._ask("POST", f"/work_pools/{resource(name)}/workers/filter", {}, within_s=within_s) or []
        return any(one["status"] == "ONLINE" and one["name"] != besides for one in found)

    def jobs(self, name: str, limit: int = 5) -> list[Job]:
        """The last jobs, newest first."""
        body = {"work_pools": {"name": {"any_": [resource(name)]}}, "sort": "START_TIME_DESC", "limit": limit}
        return [_job(one) for one in self._ask("POST", "/flow_runs/filter", body) or []]

    def start(self, name: str, job: dict[str, Any]) -> str:
        """Queue a job; its id.

        Raises:
            MixbitError: no such device here.
        """
        deployment = self._ask("GET", f"/deployments/name/{FLOW}/{name}", within_s=PATIENT_S)
        if deployment is None:
            hint = f"On the device: `mixbit-device serve --name {name} --server {self.api_url.removesuffix('/api')}`"
            raise MixbitError(f"device {name}", "never joined this server", got=self.api_url, hint=hint)
        path = f"/deployments/{deployment['id']}/create_flow_run"
        # The key makes it safe to ask again: two jobs would run otherwise.
        body = {"parameters": {"job": job}, "idempotency_key": uuid.uuid4().hex}
        return str(self._need(self._ask("POST", path, body, within_s=PATIENT_S))["id"])

    def job(self, job_id: str, within_s: float = PATIENT_S) -> Job:
        """A job's state; patient, for a server that is started again meanwhile keeps its jobs."""
        return _job(self._need(self._ask("GET", f"/flow_runs/{job_id}", within_s=within_s)))

    def answer(self, job_id: str) -> dict[str, Any] | None:
        """What the device answered; None when it did not."""
        body = {"artifacts": {"flow_run_id": {"any_": [job_id]}, "type": {"any_": ["json"]}}, "limit": 1}
        found = self._ask("POST", "/artifacts/filter", body, within_s=PATIENT_S) or []
        return dict(json.loads(found[0]["data"])) if found else None

    def stop(self, job: Job) -> None:
        """End a job. One that runs is told to stop, for only then does the device's process really end."""
        if job.state in ENDED:
            return
        runs = job.state == "RUNNING"
        state = {"type": "CANCELLING", "name": "Cancelling"} if runs else {"type": "CANCELLED", "name": "Cancelled"}
        self._ask("POST", f"/flow_runs/{job.job_id}/set_state", {"state": state, "force": not runs})

    def lose(self, job: Job) -> None:
        """Note that a job ended without a word."""
        state = {"type": "CRASHED", "name": "Crashed", "message": f"{LOST} (it has begun anew)"}
        self._ask("POST", f"/flow_runs/{job.job_id}/set_state", {"state": state, "force": True})

    def forget(self, name: str) -> None:
        """Delete what joining made: announcement, queue, and with it the device's right to be asked."""
        for found in (
            self._ask("POST", "/automations/filter", {"automations": {"name": {"any_": [resource(name)]}}}) or []
        ):
            self._ask("DELETE", f"/automations/{found['id']}")
        deployment = self._ask("GET", f"/deployments/name/{FLOW}/{name}")
        if deployment is not None:
            self._ask("DELETE", f"/deployments/{deployment['id']}")
        self._ask("DELETE", f"/work_pools/{resource(name)}")
        self._ask("DELETE", f"/variables/name/{resource(name)}")

    def _ask(self, method: str, path: str, body: Any = None, *, within_s: float = RETRY_S) -> Any:
        """The answer, None for HTTP 404 and for an empty one; tried again while the server is away."""
        end, pause_s = time.monotonic() + within_s, 0.2
        while True:
            try:
                return self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() + pause_s > end:
                    cause = getattr(error, "reason", None) or error
                    hint = "Start it with `mixbit up`, or check $MIXBIT_PREFECT_URL"
                    what = f"the server of the devices does not answer ({cause})"
                    raise ServerAway(self.api_url, what, hint=hint) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _once(self, method: str, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json", **prefect_credentials()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api_url + path, data=data, method=method, headers=headers)  # noqa: S310 - checked
        try:
            with opener(self.api_url).open(request, timeout=ANSWER_S) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            if error.code == 404:
                return None
            if error.code in BUSY:
                raise ConnectionError(f"HTTP {error.code}") from None
            what = f"the server of the devices refused {path}: HTTP {error.code} {said[:200]}"
            raise MixbitError(self.api_url, what, hint="Is it a Prefect server of the pinned version?") from None
        except ValueError:
            raise MixbitError(self.api_url, "not a Prefect server", hint="Check $MIXBIT_PREFECT_URL") from None

    def _need(self, found: Any) -> dict[str, Any]:
        if found is None:
            raise MixbitError(self.api_url, "the server of the devices lost a job", hint="Run the same command again")
        return dict(found)


def _job(found: dict[str, Any]) -> Job:
    state = found.get("state") or {}
    return Job(
        job_id=str(found["id"]),
        state=str(state.get("type") or found.get("state_type") or "SCHEDULED"),
        message=str(state.get("message") or ""),
        began=str(found.get("start_time") or found.get("expected_start_time") or ""),
        took_s=float(found.get("total_run_time") or 0.0),
    )

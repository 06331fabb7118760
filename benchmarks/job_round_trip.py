"""How long a device takes to answer: from the host's question to its answer, through a real Prefect server.

Both servers and `mixbit-device serve` run here on loopback, each as processes of their own in a folder of their own.
The file is a small network's. Two jobs: `executed` opens a session and measures nothing; `compare` measures float
beside itself as briefly as the protocol allows (10 rounds). What measuring takes is the same work timed on `local` in
the same minute, where `executed` needs no process of its own; the rest is the way there and back: queue, Prefect
starting a process for the job, the check of the file, the answer. The first job of each kind is told apart: the file
goes up and down with it.

Example: .venv/bin/python benchmarks/job_round_trip.py --repeats 20
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from latency_table import inputs_of, network_file
from machine import machine

from flows.server_process import wait_until
from flows.servers import ensure, stop_all
from mixbit.devices.device import FLOAT, Device, Request, find_device, request_for
from mixbit.devices.remote import refresh
from mixbit.devices.server import Server
from tasks.place import ROOT

NAME, NETWORK = "loopback", "resnet8"
JOIN_S = 120.0
BRIEF = {"rounds": 10, "block_s": 0.001, "limit_s": 5.0}


@contextmanager
def device(folder: Path) -> Iterator[Device]:
    """A device that has joined servers of its own; all of it ends with the block."""
    os.environ["MIXBIT_HOME"] = str(folder / "host")
    servers = ensure(folder / "host")
    command = [sys.executable, "-m", "mixbit.devices.command", "serve", "--name", NAME]
    command += ["--server", servers.prefect_url, "--folder", str(folder / "device")]
    elsewhere = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    with (folder / "log").open("w") as log:
        served = subprocess.Popen(
            command, cwd=folder, env=elsewhere | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
    try:
        os.environ |= servers.environment()
        server = Server(servers.prefect_api_url)
        joined = wait_until(lambda: server.is_online(NAME) or served.poll() is not None, JOIN_S)
        assert joined, "the device did not come online"
        assert served.poll() is None, (folder / "log").read_text()
        refresh(NAME, server)
        yield find_device(NAME)
    finally:
        served.terminate()
        served.wait(60)
        stop_all(folder / "host")


def timed(work: Callable[[], object]) -> float:
    """Wall seconds."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def jobs(request: Request, on: Device) -> dict[str, Callable[[], object]]:
    """The two kinds of job."""
    return {
        "executed": lambda: on.executed(request.models[FLOAT], 1),
        "compare": lambda: on.compare(request),
    }


def row_of(there: list[float], here: list[float]) -> dict[str, Any]:
    """What is told of one kind of job; the first round trip stands apart."""
    later, measuring = there[1:], statistics.median(here)
    return {
        "first_s": round(there[0], 3),
        "median_s": round(statistics.median(later), 3),
        "p90_s": round(float(np.quantile(later, 0.9)), 3),
        "measuring_median_s": round(measuring, 3),
        "measuring_share": round(measuring / statistics.median(later), 3),
        "round_trips": len(later),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="round trips of each kind, besides the first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = inputs_of(NETWORK, folder)
        path = network_file(NETWORK, inputs, folder)
        request = request_for({FLOAT: path}, json.loads(inputs["info"].read_bytes())["input_shape"], **BRIEF)
        with device(folder) as there:
            local, remote = jobs(request, find_device("local")), jobs(request, there)
            times: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in remote}
            for _ in range(options.repeats + 1):
                for kind, (round_trips, measuring) in times.items():
                    round_trips.append(timed(remote[kind]))
                    measuring.append(timed(local[kind]))
    rows = {kind: row_of(*found) for kind, found in times.items()}
    print(json.dumps({"rows": rows, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

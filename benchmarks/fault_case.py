"""A copy of the checkout with a tiny experiment whose data DVC makes; what faults are tried on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tiny_network import NETWORK
from flows.server_process import ServerProcess, members, wait_until
from tasks.place import ROOT
from tasks.record import Record

INJECTION = "benchmarks/fault_injection"  # in the copy, so that edits here do not reach it
STATE_PARTS = ("records", "blobs", "latest", "partial", "locks")
DVC_PARTS = ("data/shapes.npz", "dvc.lock", ".dvc/cache", ".dvc/tmp")
TOKEN = "MIXBIT_FAULT_TOKEN"  # noqa: S105 - the name of a variable
DVC = """
stages:
  shapes:
    cmd: python data/shapes.py
    deps: [data/shapes.py]
    outs: [data/shapes.npz]
"""
SHAPES = """
import numpy as np
rng = np.random.default_rng(0)
arrays = {}
for split, count in {"train": 60, "val": 24, "test": 24}.items():
    y = np.arange(count) % 3
    x = rng.integers(0, 60, (count, 1, 6, 6))
    x[np.arange(count), 0, y * 2] += 150
    arrays |= {f"{split}_x": x.astype(np.uint8), f"{split}_y": y.astype(np.int64)}
np.savez("data/shapes.npz", **arrays)
"""
EXPERIMENT = """
model: {factory: faultnet:net, train: {epochs: 2, batch_size: 16}}
data: shapes
proxy: {fraction: 0.5}
indicators: {num_bits: [2, 4, 8], settings: {epochs: 1, batch_size: 16}}
budgets: {w4a4: {bitops: w4a4}}
finetune: {epochs: 1, batch_size: 16}
"""


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    code: int
    seconds: float
    out: str
    error: str
    pid: int
    killed_at_s: float | None = None


@dataclass(frozen=True)
class Case:
    """`folder` holds checkout/, experiment/, state/ and what the runs said; `environment` is added to theirs."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        """The code that runs; a copy, so that DVC may write into it."""
        return self.folder / "checkout"

    @property
    def state(self) -> Path:
        """Records, blobs, and the servers' data."""
        return self.folder / "state"

    @property
    def events(self) -> Path:
        """What the runs say about themselves."""
        return self.folder / "events.jsonl"

    def start(self, *arguments: str, **fault: Any) -> subprocess.Popen[str]:
        """A mixbit command under a fault; its output goes to files, so no pipe holds it up."""
        fault = {"log": str(self.events), "servers": str(self.state / "servers.json"), **fault}
        path = os.pathsep.join([str(self.checkout / INJECTION), str(self.checkout)])
        own = {"MIXBIT_HOME": str(self.state), "PYTHONPATH": path, "MIXBIT_FAULT": json.dumps(fault)}
        environment = {**os.environ, TOKEN: str(self.folder), "OMP_NUM_THREADS": "1"} | own | self.environment
        with (self.folder / "out").open("w") as out, (self.folder / "error").open("w") as error:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                cwd=self.checkout, env=environment, stdout=out, stderr=error, text=True,
            )  # fmt: skip

    def run(self, kill_after_s: float | None = None, limit_s: float = 300.0, **fault: Any) -> Ended:
        """`mixbit run`, killed after a while if asked."""
        began_s = time.monotonic()
        process = self.start("run", str(self.folder / "experiment" / "fault.yaml"), **fault)
        killed_at_s = None
        if kill_after_s is not None and not wait_until(lambda: process.poll() is not None, kill_after_s):
            process.send_signal(signal.SIGKILL)
            killed_at_s = time.monotonic() - began_s
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        out, error = ((self.folder / name).read_text() for name in ("out", "error"))
        return Ended(code, time.monotonic() - began_s, out, error, process.pid, killed_at_s)

    def told(self) -> list[dict[str, Any]]:
        """What the runs since the last look said about themselves; forgotten afterwards."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        self.events.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def servers(self) -> dict[str, Any]:
        """servers.json."""
        content: dict[str, Any] = json.loads((self.state / "servers.json").read_bytes())
        return content

    def mlflow(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the tracking server, past the product's own client."""
        url = f"http://127.0.0.1:{self.servers()['mlflow']['port']}/api/2.0/mlflow/{endpoint}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            content: dict[str, Any] = json.load(answer)
        return content

    def stage_runs(self) -> list[dict[str, Any]]:
        """Every stage run that the tracking server shows, finished or not."""
        known = self.mlflow("experiments/search", {"max_results": 100}).get("experiments", [])
        ids = [one["experiment_id"] for one in known if one["name"] == "mixbit-stages"]
        if not ids:
            return []
        runs: list[dict[str, Any]] = self.mlflow("runs/search", {"experiment_ids": ids, "max_results": 5000}).get(
            "runs", []
        )
        return runs

    def records(self) -> Iterator[Record]:
        """Every record on disk that parses."""
        for path in self.state.glob("records/*/*.json"):
            try:
                yield Record.from_json(path.read_bytes())
            except (ValueError, TypeError, KeyError):
                continue

    def forget(self, stage: str | None = None) -> None:
        """As if nothing, or as if this stage, had never run, here and on the tracking server; `dvc`: its outputs."""
        if stage in {None, "dvc"}:
            for part in DVC_PARTS:
                remove(self.checkout / part)
        keys = {record.key for record in self.records() if stage in {None, record.stage}}
        for run in self.stage_runs():
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            if stage is None or tags.get("mixbit.key") in keys:
                self.mlflow("runs/delete", {"run_id": run["info"]["run_id"]})
        if stage is None:
            for part in STATE_PARTS:
                remove(self.state / part)
        for record in list(self.records()):
            if record.stage == stage:
                remove(self.state / "records" / stage / f"{record.key}.json")
                for output in record.outputs.values():
                    remove(self.state / "blobs" / output.sha256[:2] / output.sha256)

    def processes(self) -> list[psutil.Process]:
        """What still runs on this case's behalf, but for the servers that should."""
        wanted = [ServerProcess(**one["process"]) for one in self.servers().values() if one["process"]]
        kept = {member.pid for process in wanted for member in members(process)}
        return [found for found in psutil.process_iter() if found.pid not in kept and self._is_ours(found)]

    def _is_ours(self, found: psutil.Process) -> bool:
        try:
            return bool(found.status() != psutil.STATUS_ZOMBIE and found.environ().get(TOKEN) == str(self.folder))
        except psutil.Error:
            return False


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_case(folder: Path, **environment: str) -> Case:
    """Copy what version control holds, with a dvc.yaml of one quick stage."""
    case = Case(folder, environment)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (case.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, case.checkout / name)
    for package in ("mixbit", "tasks", "flows", "policies", "benchmarks"):  # also what is not yet tracked
        shutil.copytree(ROOT / package, case.checkout / package, dirs_exist_ok=True)
    (case.checkout / "data").mkdir(exist_ok=True)
    (case.checkout / "dvc.yaml").write_text(DVC)
    (case.checkout / "data" / "shapes.py").write_text(SHAPES)
    remove(case.checkout / "dvc.lock")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "faultnet.py").write_text(NETWORK)
    (folder / "experiment" / "fault.yaml").write_text(EXPERIMENT)
    return case

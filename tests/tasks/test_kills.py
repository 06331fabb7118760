"""SIGKILL at every named point of the contract: a real stage, in a process of its own, with a real tracking server."""

import hashlib
import json
import os
import subprocess
import sys
import uuid

import pytest

from tasks.place import ROOT
from tasks.record import Record
from tasks.store import Store
from tasks.tracking_runs import get_run

LAYER = {"kind": "conv2d", "macs": 100, "weights": 10, "biases": 1, "out_channels": 1, "in_channels": 1, "groups": 1,
         "calls": 1, "reads": "x", "never_run": False}  # fmt: skip
CHILD = """
import sys
from pathlib import Path
from tasks.baseline import Params
from tasks.stage import Artifact, Call, Context, run_stage
from tasks.store import Store
state, url, layers, sha256 = sys.argv[1:]
call = Call("baseline", "baseline", Params(weight_bits=4, activation_bits=4),
            {"layers": Artifact(sha256, "layers/layers.json", Path(layers))})
done = run_stage(call, Context(Store(Path(state)), "kills", (), url), lambda _why: None, lambda *_: None)
print(done.was, done.record.run_id)
"""
BEFORE_PENDING = ("compute", "blob write: before", "blob write: renamed", "blob write: after", "pending: before")
FROM_PENDING = (
    *("pending: half", "pending: after", "upload: run started", "upload: half"),
    *("FINISHED: before", "FINISHED: after", "record: before", "record: half", "record: after"),
)


@pytest.fixture
def run(tmp_path, mlflow_url):
    """The child under a fault; its layers are unlike any other test's, so no server knows its key."""
    names = ["a", uuid.uuid4().hex, "b"]
    layers = {
        "input_shape": [1, 4, 4],
        "layers": [LAYER | {"name": name} for name in names],
        "first": "a",
        "last": "b",
        "shared_activations": [],
        "residual_ties": [],
        "batchnorms": {},
        "never_run": [],
    }
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(layers))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def start(**fault):
        fault = json.dumps(fault | {"log": str(tmp_path / "events")})
        paths = os.pathsep.join([str(ROOT / "benchmarks/fault_injection"), str(ROOT)])
        own = {"MIXBIT_HOME": str(tmp_path / "state"), "PYTHONPATH": paths, "MIXBIT_FAULT": fault}
        command = [sys.executable, "-c", CHILD, str(tmp_path / "state"), mlflow_url, str(path), sha256]
        return subprocess.run(command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, check=False)

    return start


def records(tmp_path):
    return [Record.from_json(path.read_bytes()) for path in (tmp_path / "state/records").rglob("*.json")]


@pytest.mark.parametrize("point", [*BEFORE_PENDING, *FROM_PENDING])
def test_after_a_kill_the_next_run_goes_on_and_computes_nothing_that_was_pending(run, point, tmp_path, mlflow_url):
    assert run(point=point).returncode == -9
    pending = bool(records(tmp_path))
    assert pending == (point in FROM_PENDING and point != "pending: half")
    again = run()
    assert again.returncode == 0, again.stderr
    was, run_id = again.stdout.split()
    assert (was == "computed") == (not pending)
    assert get_run(mlflow_url, run_id).status == "FINISHED"
    (record,) = records(tmp_path)
    assert Store(tmp_path / "state").fault(record.outputs["policy.json"]) is None


def test_two_kills_in_a_row_leave_unfinished_runs_that_nobody_uses(run, tmp_path, mlflow_url):
    for _ in range(2):
        assert run(point="FINISHED: before").returncode == -9
    assert run().stdout.startswith("uploaded ")
    assert get_run(mlflow_url, records(tmp_path)[0].run_id).status == "FINISHED"

"""One kill: forget a part, run under a fault, run again, and see whether anything is amiss."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_case import Case, Ended
from flows.server_process import wait_until
from tasks.record import Record

COMPARED = (
    "policy",
    "baseline",
    "float_model",
    "indicators",
    "finetuned_model",
    "deployable",
    "dataset",
    "proxy",
    "layers",
)
GONE_S = 5.0


@dataclass(frozen=True)
class Fault:
    """What to kill and where.

    Attributes:
        family: the row of the table.
        point: a point of the injection; empty for a kill by time.
        stage: at which stage; also what is forgotten before, with everything when empty.
        who: `run`, `dvc`, `prefect`, `mlflow` with all its children, or `mlflow master` without them.
        nth: at which of several visits.
        every_s: seconds between self-checkpoints.
        at: part of an undisturbed run's duration, of a kill by time.
    """

    family: str
    point: str = ""
    stage: str = ""
    who: str = "run"
    nth: int = 1
    every_s: float = 10.0
    at: float = 0.0


@dataclass
class Outcome:
    """What happened. `amiss` is empty when all is as it should be."""

    fault: Fault
    killed: bool = False
    first_s: float = 0.0
    recovery_s: float = 0.0
    computed: int = 0
    needless: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: cell -> file -> sha256, and how long it took."""

    outputs: Mapping[str, Mapping[str, str]]
    seconds: float


@dataclass(frozen=True)
class Left:
    """What a kill left: keys that are finished or pending, and short keys with their last self-checkpoint's step."""

    finished: set[str]
    checkpoints: dict[str, int]


def reference(case: Case) -> Reference:
    """The undisturbed run, everything computed."""
    assert case.start("up", "--no-worker").wait(300) == 0
    case.forget()
    ended = case.run()
    assert ended.code == 0, ended.error
    case.told()
    return Reference(outputs(case), ended.seconds)


def outputs(case: Case) -> dict[str, dict[str, str]]:
    """What each cell has, by its bytes and not by its record."""
    found = {}
    for path in sorted(case.state.glob("latest/fault/*.json")):
        record = Record.from_json(path.read_bytes())
        if record.stage in COMPARED:
            found[path.stem] = {name: _digest(blob(case, one.sha256)) for name, one in record.outputs.items()}
    return found


def attempt(case: Case, fault: Fault, undisturbed: Reference) -> Outcome:
    """Kill once and recover once."""
    assert case.start("up", "--no-worker").wait(300) == 0
    case.forget(fault.stage or None)
    case.told()
    kill_after_s = None if fault.point else fault.at * undisturbed.seconds
    asked = {"point": fault.point, "who": fault.who, "nth": fault.nth, "every_s": fault.every_s}
    stage = {} if fault.stage in {"", "dvc"} else {"stage": fault.stage}
    first = case.run(kill_after_s, **asked, **stage)
    told = case.told()
    outcome = Outcome(fault, first_s=round(first.seconds, 1))
    outcome.killed = first.killed_at_s is not None or any(one["event"] == "kill" for one in told)
    if not outcome.killed:
        return outcome
    outcome.amiss += _manners(fault, first)
    outcome.amiss += [f"after the kill {name} still ran" for name in _remaining(case)]
    left = Left(_finished(case) | _was_pending(fault, told), _checkpoints(case))
    again = case.run(every_s=fault.every_s)
    outcome.recovery_s = round(again.seconds, 1)
    _judge_(outcome, case, again, left, undisturbed)
    return outcome


def _judge_(outcome: Outcome, case: Case, again: Ended, left: Left, undisturbed: Reference) -> None:
    told = case.told()
    computed = {one["key"]: one["stage"] for one in told if one["event"] == "computing"}
    outcome.computed = len(computed)
    outcome.needless = sorted(stage for key, stage in computed.items() if key in left.finished)
    if again.code != 0 or "Traceback" in again.error:
        outcome.amiss.append(f"the next run ended with {again.code}: {again.error.strip()[-300:]}")
    if outputs(case) != undisturbed.outputs:
        outcome.amiss.append("outputs differ from the undisturbed run's")
    restored: dict[str, int] = {}
    for one in told:
        if one["event"] == "restored":
            restored[one["key"]] = max(one["step"], restored.get(one["key"], 0))
    for key, step in left.checkpoints.items():
        taken_up = restored.get(next((full for full in computed if full.startswith(key)), ""), 0)
        line = f"{computed.get(key, key[:8])} from step {taken_up} of {step}"
        (outcome.resumed if taken_up >= step else outcome.amiss).append(line)
    _look_around_(outcome, case)


def _look_around_(outcome: Outcome, case: Case) -> None:
    """Runs that are used must be FINISHED; no lock is held; nothing runs on."""
    statuses = {one["info"]["run_id"]: one["info"]["status"] for one in case.stage_runs()}
    outcome.amiss += [
        f"{one.stage} uses run {one.run_id}, which is {statuses.get(str(one.run_id))}"
        for one in case.records()
        if statuses.get(str(one.run_id)) != "FINISHED"
    ]
    outcome.amiss += [f"{name} is locked" for name in _locked(case)]
    outcome.amiss += [f"after the recovery {name} still ran" for name in _remaining(case)]


def _manners(fault: Fault, first: Ended) -> list[str]:
    """A run that was not killed itself says what happened in one line, or went on."""
    if first.code < 0 or fault.who == "run":
        return [] if first.code == -9 else [f"the killed run ended with {first.code}"]
    lines = first.error.strip().splitlines()
    right = (first.code, len(lines)) in {(0, 0), (1, 1)} and "Traceback" not in first.error
    return [] if right else [f"the run said, code {first.code}: {first.error.strip()[-300:]}"]


def _finished(case: Case) -> set[str]:
    """Keys that must not be computed again: a record, finished or pending, and all its bytes; `dvc`: its data."""
    keys = {
        record.key
        for record in case.records()
        if all(_digest(blob(case, one.sha256)) == one.sha256 for one in record.outputs.values())
    }
    return keys | ({"dvc"} if _data_is_made(case) else set())


def _was_pending(fault: Fault, told: list[dict[str, Any]]) -> set[str]:
    """The key at which the kill struck, where the stage must have left a pending record, whether it did or not."""
    after_it = fault.point.startswith(("upload", "FINISHED", "record")) or fault.point == "pending: after"
    return {one["key"] for one in told if one["event"] == "kill" and after_it}


def _data_is_made(case: Case) -> bool:
    """Whether DVC says so, and the bytes are there."""
    data, lock = case.checkout / "data" / "shapes.npz", case.checkout / "dvc.lock"
    if not (data.is_file() and lock.is_file()):
        return False
    return hashlib.md5(data.read_bytes(), usedforsecurity=False).hexdigest() in lock.read_text()


def _checkpoints(case: Case) -> dict[str, int]:
    """Short key -> step of the newest whole self-checkpoint."""
    found: dict[str, int] = {}
    for path in case.state.glob("partial/*/checkpoint/*.json"):
        tensors = path.with_suffix(".safetensors")
        whole = json.loads(path.read_bytes())["tensors_sha256"] == _digest(tensors)
        key = path.parent.parent.name.rpartition("-")[2]
        if whole and not any(full.startswith(key) for full in _finished(case)):
            found[key] = max(found.get(key, 0), int(path.stem))
    return found


def _locked(case: Case) -> list[str]:
    """Locks that someone still holds, also that of the store's folder, and DVC's entries."""
    files = [*case.state.glob("locks/*"), case.state / "servers.lock", *case.checkout.glob(".dvc/tmp/*lock")]
    held = [path.name for path in [case.state, *files] if _is_held(path)]
    for path in case.checkout.glob(".dvc/tmp/rwlock"):
        content: Any = json.loads(path.read_bytes() or b"{}")
        held += [f"DVC's {kind} lock of {name}" for kind in content for name, by in content[kind].items() if by]
    return held


def _is_held(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remaining(case: Case) -> list[str]:
    wait_until(lambda: not case.processes(), GONE_S)
    return [" ".join(found.cmdline()[:6]) for found in case.processes()]


def blob(case: Case, sha256: str) -> Path:
    """Where bytes are."""
    return case.state / "blobs" / sha256[:2] / sha256


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "lost"

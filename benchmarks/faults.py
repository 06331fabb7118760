"""What SIGKILL does: `python -m benchmarks.faults FOLDER [KILLS]`; run it again to go on where it stopped.

Each kill hits a run, DVC or a server at a named point or at a random moment. The next run must complete, with the
bytes of an undisturbed run, and compute nothing again that was finished or pending. One line per kill goes to
FOLDER/kills.jsonl, the table to the screen, and both in short, below the machine, to FOLDER/faults.jsonl.
"""

import json
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.fault_case import Case, make_case
from benchmarks.fault_trial import Fault, Outcome, Reference, attempt, reference
from benchmarks.machine import machine

SEED = 0
UNIFORM = 24
ATTEMPTS = 3
INJECTED = (
    Fault("compute", "progress", "indicators", nth=2),
    Fault("compute", "compute", "dataset"),
    Fault("compute", "compute", "deployable", nth=2),
    Fault("blob write", "blob write: before", "deployable", nth=2),
    Fault("blob write", "blob write: renamed", "indicators"),
    Fault("blob write", "blob write: after", "finetuned_model"),
    Fault("pending", "pending: before", "indicators"),
    Fault("pending", "pending: half", "float_model"),
    Fault("pending", "pending: after", "deployable"),
    Fault("upload", "upload: run started", "indicators"),
    Fault("upload", "upload: half", "deployable", nth=2),
    Fault("upload", "upload: half", "dataset"),
    Fault("FINISHED", "FINISHED: before", "indicators"),
    Fault("FINISHED", "FINISHED: after", "float_model"),
    Fault("FINISHED", "FINISHED: after", "policy"),
    Fault("record", "record: before", "indicators"),
    Fault("record", "record: half", "deployable"),
    Fault("record", "record: after", "float_model"),
    Fault("DVC stage", "DVC stage: before", "dvc"),
    Fault("DVC stage", "DVC stage: running", "dvc"),
    Fault("DVC stage", "DVC stage: before dvc.lock", "dvc"),
    Fault("DVC stage", "DVC stage: half", "dvc"),
    Fault("DVC stage", "DVC stage: after dvc.lock", "dvc"),
    Fault("self-checkpoint", "self-checkpoint: before", "indicators", nth=2, every_s=0),
    Fault("self-checkpoint", "self-checkpoint: half", "float_model", nth=3, every_s=0),
    Fault("self-checkpoint", "self-checkpoint: after", "finetuned_model", nth=4, every_s=0),
    Fault("DVC itself", "DVC stage: running", "dvc", who="dvc"),
    Fault("DVC itself", "DVC stage: half a lock", "dvc", who="dvc", nth=2),
    Fault("DVC itself", "DVC stage: made", "dvc", who="dvc"),
    Fault("DVC itself", "DVC stage: before dvc.lock", "dvc", who="dvc"),
    Fault("DVC itself", "DVC stage: half", "dvc", who="dvc"),
    Fault("MLflow server", "compute", "indicators", who="mlflow"),
    Fault("MLflow server", "upload: half", "deployable", who="mlflow", nth=2),
    Fault("MLflow server", "FINISHED: before", "float_model", who="mlflow"),
    Fault("MLflow server", "compute", "deployable", who="mlflow master"),
    Fault("Prefect server", "compute", "indicators", who="prefect"),
    Fault("Prefect server", "record: after", "deployable", who="prefect"),
    Fault("Prefect server", "upload: run started", "policy", who="prefect"),
)


def faults(seed: int = SEED, uniform: int = UNIFORM) -> list[Fault]:
    """Every kill: the named points, and moments drawn evenly over a run."""
    rng = random.Random(seed)
    return [*INJECTED, *(Fault("uniform over the run", at=round(rng.random(), 4)) for _ in range(uniform))]


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Kills by family."""
    rows = [
        "| killed at | kills | recovered | needlessly recomputed | resumed from a self-checkpoint |",
        "|---|---|---|---|---|",
    ]
    done = [line for line in lines if line["killed"]]
    families = list(dict.fromkeys(line["fault"]["family"] for line in done))
    for family in [*families, "all"]:
        mine = [line for line in done if family in {"all", line["fault"]["family"]}]
        recovered = sum(not line["amiss"] for line in mine)
        needless, resumed = (sum(len(line[name]) for line in mine) for name in ("needless", "resumed"))
        rows.append(f"| {family} | {len(mine)} | {recovered} | {needless} | {resumed} |")
    return "\n".join(rows)


def short(line: dict[str, Any]) -> dict[str, Any]:
    """What the docs keep of a kill: where, whose, and what was not as usual."""
    fault = line["fault"]
    where = {name: fault[name] for name in ("family", "stage", "who")} | {"at": fault["point"] or fault["at"]}
    what = {name: line[name] for name in ("first_s", "recovery_s", "computed", "needless", "resumed", "amiss")}
    return {name: value for name, value in (where | what).items() if value not in ("", [])}


def told(outcome: Outcome) -> str:
    """One line for the screen."""
    fault = outcome.fault
    where = fault.point or f"at {fault.at:.0%}"
    state = "no kill: the run was over" if not outcome.killed else "; ".join(outcome.amiss) or "recovered"
    seconds = f"{outcome.first_s:5.1f} s {outcome.recovery_s:5.1f} s"
    counts = f"computed {outcome.computed} needless {len(outcome.needless)}"
    return f"{fault.family:20} {where:26} {fault.stage:15} {fault.who:8} {seconds} {counts}: {state}"


def prepared(folder: Path) -> tuple[Case, Reference]:
    """The case and its undisturbed run, made once."""
    kept = folder / "reference.json"
    if kept.is_file():
        return Case(folder), Reference(**json.loads(kept.read_bytes()))
    case = make_case(folder)
    undisturbed = reference(case)
    kept.write_text(json.dumps(asdict(undisturbed), indent=1))
    return case, undisturbed


def surely(case: Case, fault: Fault, undisturbed: Reference) -> tuple[Outcome, Reference]:
    """A run that was over before its moment came tells how fast runs are now; then the moment is tried again."""
    outcome = attempt(case, fault, undisturbed)
    for _ in range(ATTEMPTS - 1):
        if outcome.killed:
            break
        undisturbed = replace(undisturbed, seconds=outcome.first_s)
        outcome = attempt(case, fault, undisturbed)
    return outcome, undisturbed


def main(folder: Path, kills: int | None = None) -> int:
    """Go on with the first `kills` that are left, or all; 1 when anything was amiss."""
    folder.mkdir(parents=True, exist_ok=True)
    case, undisturbed = prepared(folder.resolve())
    log = folder / "kills.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    try:
        for fault in faults()[len(lines) : kills]:
            outcome, undisturbed = surely(case, fault, undisturbed)
            lines.append(asdict(outcome))
            with log.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(told(outcome), flush=True)
    finally:
        case.start("down").wait(60)
    print(table(lines))
    kept = [{"machine": machine()}, *map(short, lines)]
    (folder / "faults.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    return int(any(line["amiss"] or line["needless"] for line in lines))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))

"""Milliseconds per stage, by part, of a run that finds everything; and what a computed stage pays beside its work.

A program: the experiment's file as its argument; $MIXBIT_HOME holds a finished run, both servers answer.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.declaration import read_experiment
from flows.pipeline import pipeline
from flows.plan import Planner
from flows.servers import ensure
from tasks import memo, tracking
from tasks.closure import Snapshot
from tasks.place import ROOT, state_dir
from tasks.record import Record
from tasks.stage import Call, Context, identify, look_up
from tasks.store import Store

REPEATS = 5


@dataclass
class Collected(Planner):
    """A planner that keeps the cells it looks up."""

    calls: list[Call] = field(default_factory=list)

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Any:
        """Look up, and keep."""
        given = {key: value for key, value in inputs.items() if value is not None}
        self.calls.append(Call(name, f"{name} {tag}".strip(), params, given))
        return super().__call__(name, params, tag, **inputs)


def per_stage_ms(act: Callable[[], object], count: int) -> dict[str, float]:
    """Median and extremes over the repeats, per stage."""
    times = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        act()
        times.append((time.perf_counter() - began_s) * 1000 / count)
    return {"median": round(statistics.median(times), 3), "min": round(min(times), 3), "max": round(max(times), 3)}


def main(path: Path) -> None:
    """Print one JSON object."""
    servers = ensure(state_dir())
    os.environ |= servers.environment()
    declared = read_experiment(path, ROOT)
    context = Context(Store(state_dir()), declared.experiment.name, declared.search_path, None)
    planner = Collected(declared, context)
    pipeline(declared, planner)
    calls, store, url = planner.calls, context.store, servers.mlflow_url
    records = [record for call in calls if (record := look_up(store, identify(call, context))[0])]
    assert len(records) == len(calls)
    count = len(calls)

    def identified() -> list[Record]:
        fresh = replace(context, snapshot=Snapshot())
        return [identify(call, fresh) for call in calls]

    def unremembered() -> list[Record]:
        with mock.patch.object(memo, "_look_up", return_value=None):
            return identified()

    digests = [output.sha256 for record in records for output in record.outputs.values()]
    parts = {
        "key: closure, parameters, inputs (code remembered)": per_stage_ms(identified, count),
        "key: the same, every file of code parsed": per_stage_ms(unremembered, count),
        "look up: record and outputs (digests remembered)": per_stage_ms(
            lambda: [look_up(store, record) for record in records], count
        ),
        "hashing outputs that changed their stamp": per_stage_ms(
            lambda: [memo.sha256_afresh(store.blob(one)) for one in digests], count
        ),
        "Prefect task that finds": prefect_ms(count),
        "MLflow, found here: one search for the whole run": per_stage_ms(
            lambda: tracking.finished(url, [str(record.run_id) for record in records]), count
        ),
        "MLflow, not found here: search by key": per_stage_ms(
            lambda: [tracking.find_stage(url, "0" * 64) for _ in calls], count
        ),
        "MLflow, computed: run with all bytes": logged_ms(url, store, records),
    }
    print(json.dumps({"stages": count, "ms_per_stage": parts}))


def prefect_ms(count: int) -> dict[str, float]:
    """Task runs that compute nothing, inside one flow run."""
    from prefect import flow

    from flows.session import as_task

    @flow(name="overhead", persist_result=False, validate_parameters=False)
    def tasks() -> dict[str, float]:
        return per_stage_ms(lambda: [as_task("overhead", "overhead", lambda: None) for _ in range(count)], count)

    return tasks()


def logged_ms(url: str, store: Store, records: list[Record]) -> dict[str, float]:
    """The runs of all records, logged again under keys of their own."""

    def log() -> None:
        for record in records:
            files = {name: store.blob(output.sha256) for name, output in record.outputs.items()}
            tracking.log_stage(url, replace(record, key=os.urandom(32).hex(), run_id=None), files, {})

    return per_stage_ms(log, len(records))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""One cell of a sweep in a process of its own: whatever it dies of, the others go on.

Run as a program: the sweep's file, the cell's name, the cell's folder, the sweep's MLflow run. What it tells
meanwhile goes to `events.jsonl` of that folder, what it came to, to `result.json`.
Exit 0, 1 (failed), 3 (a device did not deliver).
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from flows.rows import policy_rows
from flows.screen import Screen
from flows.sweep_declaration import read_cell
from flows.sweep_result import EVENTS, Result, identity_of, write_result
from mixbit.devices.parent import end_with_parent
from mixbit.errors import MixbitError
from mixbit.telemetry import quiet_environment
from tasks.place import ROOT, state_dir
from tasks.store import Store

OFTEN_S = 0.5
FAILED, LOST = 1, 3


class Told(Screen):
    """A screen that nobody sees: each change is a line of a file, for whoever shows the sweep."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w", buffering=1)
        self._told_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was shown."""

    def running(self, cell: str, reason: str) -> None:
        """The stage is being computed."""
        self._tell(cell, "running", note=reason)

    def progress(self, cell: str, done: int, total: int, note: str = "") -> None:
        """The stage got on."""
        if time.monotonic() - self._told_s >= OFTEN_S:
            self._told_s = time.monotonic()
            self._tell(cell, "running", share=done / max(total, 1), note=note)

    def cached(self, cell: str) -> None:
        """The stage has its outputs already."""
        self._tell(cell, "cached")

    def done(self, cell: str, seconds: float, figures: Mapping[str, float]) -> None:
        """The stage was computed."""
        self._tell(cell, "done", seconds=seconds, figures=dict(figures))

    def failed(self, cell: str, message: str) -> None:
        """The stage stopped."""
        self._tell(cell, "failed", note=message)

    def say(self, text: str) -> None:
        """One line."""
        self._tell("", "said", note=text)

    def _tell(self, stage: str, state: str, **more: Any) -> None:
        self._file.write(json.dumps({"stage": stage, "state": state, **more}) + "\n")


def main(file: str, cell: str, folder: str, parent: str) -> int:
    """Run one cell; what it comes to is written down, whatever that is."""
    end_with_parent()
    place = Path(folder)
    declared = read_cell(Path(file), cell, ROOT)
    from prefect import flow, tags

    from flows.experiment import carried_out, leave_the_terminal_alone, opened

    leave_the_terminal_alone()
    store, task = Store(state_dir()), declared.experiment.task

    @flow(name="cell", flow_run_name=declared.experiment.name, persist_result=False, validate_parameters=False)
    def body() -> int:
        began_s = time.monotonic()
        session = opened(declared, store, Told(place / EVENTS))
        ended = carried_out(session, parent or None)
        faults = [str(fault) for fault in (*ended.faults, *session.faults())]
        result = Result(
            identity=identity_of(session.keys),
            state="partial" if session.missing else "failed" if faults else "done",
            faults=faults,
            seconds=round(time.monotonic() - began_s, 1),
            computed=len(session.computed),
            metric=ended.told.metric,
            maximize=task == "classification" or task.direction == "maximize",
            rows=policy_rows(ended.told),
            runs=dict(ended.logged),
            versions=dict(ended.versions),
        )
        write_result(place, result)
        return LOST if session.missing else FAILED if faults else 0

    with store.in_use(), tags(f"sweep:{declared.known_as}"):
        return body()


if __name__ == "__main__":
    os.environ |= quiet_environment(os.environ)
    try:
        sys.exit(main(*sys.argv[1:]))
    except MixbitError as fault:
        sys.stderr.write("".join(f"error: {line}\n" for line in str(fault).splitlines()))
        sys.exit(FAILED)

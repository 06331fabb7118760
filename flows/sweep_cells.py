"""Runs the cells of a sweep as Prefect tasks, each a process of its own, and shows how they get on."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed

from flows.screen import Screen
from flows.server_process import last_line
from flows.sweep_cell import LOST
from flows.sweep_result import EVENTS, FAULT, LOG, RESULT, Result, read_result
from mixbit.errors import MixbitError

LOOK_S = 0.25
KINDS = {-signal.SIGKILL: "killed, perhaps for want of memory", LOST: "a device did not deliver"}


class CellLost(MixbitError):  # noqa: N818 - what it says, not what it is
    """A cell that may go better the next time: its process was killed, or its device was away."""


@dataclass(frozen=True)
class Order:
    """What a cell's process is told."""

    file: str
    cell: str
    folder: Path
    parent: str

    def command(self) -> list[str]:
        """The program and its arguments."""
        return [sys.executable, "-m", "flows.sweep_cell", self.file, self.cell, str(self.folder), self.parent]


def _again(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A fault of the declaration, the code or the numbers is the same at the next try."""
    try:
        state.result()
    except CellLost:
        return True
    except BaseException:  # noqa: BLE001 - whatever else it is, it is not worth another try
        return False
    return False


@task(
    name="cell", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False,
    retry_condition_fn=_again, retry_delay_seconds=1,
)  # fmt: skip
def run_cell(name: str, order: Order) -> State[None]:
    """One cell; what it came to lies in its folder.

    Raises:
        CellLost: worth another try.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    for left in (RESULT, EVENTS, FAULT):
        (order.folder / left).unlink(missing_ok=True)
    with (
        (order.folder / LOG).open("w") as log,
        subprocess.Popen(order.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code == 0:
        return Completed(message="done")
    fault = _fault(order.folder, code)
    (order.folder / FAULT).write_text(fault)
    if code in KINDS or code < 0:
        raise CellLost(name, fault)
    return Failed(message=fault)


def _fault(folder: Path, code: int) -> str:
    """Why a cell's process ended with this code, in one line."""
    result = read_result(folder)
    if result is not None and result.faults:
        return result.faults[0]
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    if said:
        return said[0].removeprefix("error: ")
    kind = KINDS.get(code) or (f"ended by signal {-code}" if code < 0 else f"ended with code {code}")
    return f"{kind}; {last_line(folder / LOG)}" if lines else kind


def fault_of(folder: Path) -> str:
    """Why the cell of this folder failed."""
    fault = folder / FAULT
    return fault.read_text() if fault.is_file() else "it was not run to the end"


@dataclass
class Watch:
    """Cells under way: at most so many at a time; shows what their processes tell."""

    screen: Screen
    orders: Mapping[str, Order]
    workers: int
    retries: int
    _read: dict[str, int] = field(default_factory=dict)
    _stages: dict[str, str] = field(default_factory=dict)

    def until_all_ended(self) -> None:
        """Start every cell as soon as there is room, and show how they get on."""
        waiting, running = list(self.orders), dict[str, PrefectFuture[Any]]()
        tried = run_cell.with_options(retries=self.retries)
        while waiting or running:
            while waiting and len(running) < self.workers:
                name = waiting.pop(0)
                self.screen.running(name, "")
                running[name] = tried.submit(name, self.orders[name])
            done, _ = wait(list(running.values()), timeout=LOOK_S)
            for name, future in list(running.items()):
                self._look(name)
                if future in done:
                    del running[name]
                    self._ended(name, future)

    def _look(self, name: str) -> None:
        path = self.orders[name].folder / EVENTS
        try:
            with path.open() as file:
                file.seek(self._read.get(name, 0))
                lines = [line for line in file if line.endswith("\n")]
        except OSError:
            return
        self._read[name] = self._read.get(name, 0) + sum(len(line.encode()) for line in lines)
        for line in lines:
            self._show(name, json.loads(line))

    def _show(self, name: str, event: Mapping[str, Any]) -> None:
        if event["state"] == "running" and self._stages.get(name) != event["stage"]:
            self._stages[name] = event["stage"]
            self.screen.running(name, event["stage"])

    def _ended(self, name: str, future: PrefectFuture[Any]) -> None:
        future.wait()  # also for its final state to be known here
        result = read_result(self.orders[name].folder)
        if future.state.is_completed() and result is not None:
            self.screen.done(name, result.seconds, figures_of(result))
        else:
            self.screen.failed(name, fault_of(self.orders[name].folder))


def figures_of(result: Result) -> dict[str, float]:
    """What stands in the table's line of a cell."""
    rows = result.budget_rows()
    if len(rows) != 1:
        return {f"{row.name} val": row.metric_val for row in rows if row.metric_val is not None}
    row = rows[0]
    test = row.metric_deployed.value if row.metric_deployed else None
    figures = {"val_metric": row.metric_val, "test_metric_deployed": test}
    figures |= {"bitops": row.bitops, "file_bytes": row.file_bytes}
    figures |= {"latency_us": row.latencies[0].latency_us} if len(row.latencies) == 1 else {}
    return {name: float(value) for name, value in figures.items() if value is not None}

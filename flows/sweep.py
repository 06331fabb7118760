"""The flow `sweep`: a night over every cell; cells that nothing changed are not started, a failed cell is a row."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.plan import Planner
from flows.screen import Screen
from flows.servers import ensure
from flows.session import git_tags
from flows.sweep_cells import Order, Watch, fault_of
from flows.sweep_declaration import DeclaredSweep, read_sweep
from flows.sweep_night import CellRow, Night, close
from flows.sweep_plan import plan_sweep
from flows.sweep_result import Result, identity_of, read_result
from mixbit.errors import RunError
from tasks import sweep_run, tracking
from tasks.place import ROOT, state_dir
from tasks.stage import Context
from tasks.store import Store


def _run_name() -> str:
    return Path(flow_run.parameters["file"]).stem


@flow(name="sweep", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def sweep(file: str) -> None:
    """Run every cell of a sweep, then say what the night came to.

    Raises:
        RunError: cells failed, or are partial; everything that finished is kept.
    """
    store, path = Store(state_dir()), Path(file).resolve()
    declared, url = read_sweep(path, ROOT), ensure(store.folder).mlflow_url
    tags = {**git_tags(), "prefect.flow_run_id": str(flow_run.id or ""), "mixbit.cells": str(len(declared.cells))}
    began_s = time.time()
    # A second run of this sweep waits: both would write the same cells.
    with store.lock("sweep", declared.sweep.name), sweep_run.night(url, declared.sweep.name, tags) as run_id:
        screen = Screen(f"mixbit run {path.name}")
        with screen:
            rows = Cells(declared, store, url, run_id, screen).rows()
        values = {cell.name: dict(cell.labels) for cell, _ in declared.cells}
        night = Night(declared.sweep.name, run_id, began_s, round(time.time() - began_s, 1), values, rows)
        closed = close(night, declared, url)
    for line in (*closed.promoted, f"report: {closed.page}"):
        screen.say(line)
    failed = [f"{name}: {row.fault}" for name, row in rows.items() if row.state != "done"]
    if closed.broken:
        resource = {"prefect.resource.id": f"mixbit.sweep.{declared.sweep.name}"}
        emit_event("mixbit.gate.broken", resource, payload={"gates": list(closed.broken), "report": str(closed.page)})
    if failed or closed.broken:
        raise RunError([*failed, *(f"gate: {line}" for line in closed.broken)])


@dataclass(frozen=True)
class Cells:
    """The cells of one night."""

    declared: DeclaredSweep
    store: Store
    url: str
    run_id: str
    screen: Screen

    def rows(self) -> dict[str, CellRow]:
        """What each cell came to, in the order of the grid."""
        for cell, _ in self.declared.cells:
            self.screen.waiting(cell.name)
        known = self._unchanged()
        for name in known:
            self.screen.cached(name)
        orders = {
            cell.name: Order(str(self.declared.path), cell.name, self._folder(one.experiment.name), self.run_id)
            for cell, one in self.declared.cells
            if cell.name not in known
        }
        wanted = self.declared.sweep
        Watch(self.screen, orders, wanted.workers, wanted.retries).until_all_ended()
        return {cell.name: self._row(cell.name, known, orders) for cell, _ in self.declared.cells}

    def _row(self, name: str, known: Mapping[str, Result], orders: Mapping[str, Order]) -> CellRow:
        if name in known:
            return CellRow("done", known[name], was_cached=True)
        result = read_result(orders[name].folder)
        if result is None:
            return CellRow("failed", None, fault_of(orders[name].folder))
        return CellRow(result.state, result, "; ".join(result.faults))

    def _unchanged(self) -> dict[str, Result]:
        """Cells whose every stage is found, here and on the server, with what they came to."""
        context = Context(self.store, self.declared.sweep.name, (), None)
        plans = plan_sweep(self.declared, context, look=False).planners
        found = {cell.name: read_result(self._folder(one.experiment.name)) for cell, one in self.declared.cells}
        same = {
            name: result
            for name, result in found.items()
            if name in plans and result is not None and result.state == "done"
            if result.identity == _identity(plans[name])
        }
        ids = {name: {str(row.run_id) for row in plans[name].rows} for name in same}
        on_server = tracking.finished(self.url, set().union(*ids.values()))
        return {name: result for name, result in same.items() if ids[name] <= on_server}

    def _folder(self, experiment: str) -> Path:
        return self.store.folder / "sweeps" / self.declared.sweep.name / experiment


def _identity(planner: Planner) -> str | None:
    """Of a cell that would compute nothing; None of any other."""
    if any(row.state != "cached" for row in planner.rows):
        return None
    return identity_of({row.cell: str(row.key) for row in planner.rows})

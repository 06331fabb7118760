"""`mixbit plan` of a sweep: what each cell would compute, and which executions the cells share."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import click

from flows.plan import Planner, plan
from flows.sweep_declaration import DeclaredSweep
from mixbit.errors import MixbitError
from tasks.stage import Context

STATES = ("will run", "may run", "pending", "on server", "cached")
TO_RUN = ("will run", "may run")
MOST_LINES = 40


@dataclass(frozen=True)
class SweepPlan:
    """The plan of every cell.

    Attributes:
        planners: cell -> its plan.
        faults: cell -> why it has none.
    """

    planners: Mapping[str, Planner]
    faults: Mapping[str, MixbitError]

    @property
    def named(self) -> int:
        """Stages that the cells name, each counted in every cell."""
        return sum(len(planner.rows) for planner in self.planners.values())

    def executions(self) -> dict[str, Counter[str]]:
        """Stage -> execution that has to be made -> how many cells it serves."""
        found: dict[str, Counter[str]] = {}
        for planner in self.planners.values():
            for stage, execution in {(row.stage, row.execution) for row in planner.rows if row.state in TO_RUN}:
                found.setdefault(stage, Counter())[execution] += 1
        return found


def plan_sweep(declared: DeclaredSweep, context: Context, *, look: bool = True) -> SweepPlan:
    """Every cell's plan; code is read once for all. Without `look` no network is looked at that nobody knows yet."""
    planners: dict[str, Planner] = {}
    faults: dict[str, MixbitError] = {}
    for cell, one in declared.cells:
        own = replace(context, experiment=one.experiment.name, search_path=one.search_path)
        try:
            planners[cell.name] = plan(one, own, look=look)
        except MixbitError as error:
            faults[cell.name] = error
    return SweepPlan(planners, faults)


def show(planned: SweepPlan) -> None:
    """A line per cell, then what they share."""
    states = [state for state in STATES if any(row.state == state for p in planned.planners.values() for row in p.rows)]
    width = max((len(cell) for cell in planned.planners), default=0)
    click.echo(f"{'cell':<{width}}" + "".join(f"  {state:>9}" for state in states))
    for cell, planner in list(planned.planners.items())[:MOST_LINES]:
        counts = Counter[str](row.state for row in planner.rows)
        click.echo(f"{cell:<{width}}" + "".join(f"  {counts[state]:>9}" for state in states))
    if len(planned.planners) > MOST_LINES:
        click.echo(f"… and {len(planned.planners) - MOST_LINES} more cells (all with --json)")
    executions = planned.executions()
    shared = {stage: found for stage, found in executions.items() if sum(found.values()) > len(found)}
    for stage, found in shared.items():
        click.echo(f"{stage}: computed {_times(len(found))}, for {sum(found.values())} cells")
    for cell, fault in planned.faults.items():
        click.echo(f"{cell}: {fault}")
    for note in dict.fromkeys(note for planner in planned.planners.values() for note in planner.notes):
        click.echo(note)
    total = sum(map(len, executions.values()))
    click.echo(f"{len(planned.planners)} cells name {planned.named} stages; at most {total} of them are computed")


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def as_json(declared: DeclaredSweep, planned: SweepPlan) -> dict[str, Any]:
    """The plan for machines."""
    cells: list[dict[str, Any]] = [
        {"cell": cell.name, "values": dict(cell.labels), "fault": str(planned.faults[cell.name])}
        if cell.name in planned.faults
        else {
            "cell": cell.name,
            "values": dict(cell.labels),
            "stages": [
                {"stage": row.stage, "cell": row.cell, "state": row.state, "reason": row.reason, "key": row.key}
                for row in planned.planners[cell.name].rows
            ],
        }
        for cell, _ in declared.cells
    ]
    executions = {stage: len(found) for stage, found in planned.executions().items()}
    return {"sweep": declared.sweep.name, "file": declared.path.name, "cells": cells, "executions": executions}

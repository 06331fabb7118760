"""What a night came to: a record for the next night, aliases of the registry, the page."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from flows.numbers import duration
from flows.summary import PolicyRow
from flows.sweep_declaration import DeclaredSweep
from flows.sweep_gates import broken_gates, promoted
from flows.sweep_result import Result
from mixbit.policy import canonical_json
from tasks import registration as registry
from tasks import sweep_run
from tasks import tracking_rest as rest
from tasks.place import state_dir
from tasks.store import write_atomic
from tasks.sweep_content import Line, SweepContent
from tasks.sweep_report import write_sweep_report
from tasks.tracking_runs import experiment_id

RECORD, PAGE = "night.json", "sweep.html"


@dataclass(frozen=True)
class CellRow:
    """One cell of a night; `result` is what it came to, None where it failed before it came to anything."""

    state: Literal["done", "partial", "failed"]
    result: Result | None
    fault: str = ""
    was_cached: bool = False


@dataclass(frozen=True)
class Night:
    """One night over all cells.

    Attributes:
        sweep: its name.
        run_id: MLflow run.
        began_s: since the epoch.
        seconds: it took.
        values: cell -> axis -> label.
        rows: cell -> what it came to.
    """

    sweep: str
    run_id: str
    began_s: float
    seconds: float
    values: dict[str, dict[str, str]]
    rows: dict[str, CellRow]

    @property
    def title(self) -> str:
        """What the history of champions calls it."""
        return f"night of {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.began_s))}"

    def lines(self, runs_page: str = "") -> list[Line]:
        """Every policy of the night."""
        return [
            _line(name, self.values[name], row, shown, runs_page)
            for name, row in self.rows.items()
            if row.result is not None
            for shown in row.result.budget_rows()
            if shown.metric_val is not None and (row.state != "failed" or _is_registered(row.result, shown.name))
        ]

    def figures(self) -> dict[str, float]:
        """What nights are compared by."""
        rows = self.rows.values()
        states = [row.state for row in rows]
        return {
            "cells": float(len(states)),
            "cells_failed": float(states.count("failed")),
            "cells_partial": float(states.count("partial")),
            "cells_cached": float(sum(row.was_cached for row in rows)),
            "stages_computed": float(sum(row.result.computed for row in rows if row.result and not row.was_cached)),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Closed:
    """What there is to say of a night: its page, the gates that do not hold, the champions that moved."""

    page: Path
    broken: tuple[str, ...]
    promoted: tuple[str, ...]


def _is_registered(result: Result, budget: str) -> bool:
    """Whether a cell that failed came to a policy of this budget all the same."""
    return result.versions.get(budget, "").startswith("models:/")


_NIGHT = TypeAdapter(Night)


def close(night: Night, declared: DeclaredSweep, url: str) -> "Closed":
    """Compare with the last good night, point the candidates, write the page, and say that the night has ended.

    Raises:
        TrackingUnavailable: no answer; the next night says it anew.
    """
    runs_page = f"{url}/#/experiments/{experiment_id(url, night.sweep)}/runs/"
    content = content_of(night, _last_good(url, night.sweep), runs_page)
    gates = broken_gates(declared.sweep.gates, content, url)
    content = replace(content, broken=tuple(gate.words() for gate in gates))
    good = not content.failed and not gates
    folder = state_dir() / "sweeps" / declared.sweep.name
    write_atomic(folder / RECORD, canonical_json(_NIGHT.dump_python(night, mode="json")))
    page = write_sweep_report(folder / PAGE, content)
    best = {budget: content.best(budget) for budget in content.budgets()}
    for line in best.values():
        if line.version.startswith("models:/"):
            registry.point(url, line.version, registry.CANDIDATE)
    moved = list(promoted(declared.sweep.promotion, content, url, night.title)) if good else []
    figures = night.figures() | {f"best_val.{budget}": line.val for budget, line in best.items()}
    tags = {"mixbit.failed": ", ".join(content.failed), "mixbit.good": str(good).lower()}
    sweep_run.close(url, night.run_id, figures, {RECORD: folder / RECORD, PAGE: page}, tags)
    return Closed(page, tuple(content.broken), tuple(moved))


def content_of(night: Night, before: Night | None, runs_page: str) -> SweepContent:
    """The page's content."""
    results = [row.result for row in night.rows.values() if row.result is not None]
    figures = night.figures()
    facts = {
        "cells": f"{figures['cells']:.0f}, of them {figures['cells_cached']:.0f} unchanged",
        "stages computed": f"{figures['stages_computed']:.0f}",
        "took": duration(night.seconds),
    }
    return SweepContent(
        sweep=night.sweep,
        metric=results[0].metric if results else "",
        maximize=not results or results[0].maximize,
        lines=night.lines(runs_page),
        before={(line.cell, line.budget): line for line in (before.lines() if before else ())},
        failed={name: row.fault for name, row in night.rows.items() if row.state != "done"},
        facts=facts,
    )


def _last_good(url: str, sweep: str) -> Night | None:
    """The last good night; None where there was none, or its record is lost."""
    run = sweep_run.last_good_night(url, sweep)
    if run is None:
        return None
    try:
        return _NIGHT.validate_json(rest.read(url, f"{rest.artifact_path(url, run.artifacts)}/{RECORD}"))
    except (rest.TrackingRefused, rest.ArtifactLost, ValidationError):
        return None


def _line(cell: str, values: Mapping[str, str], row: CellRow, shown: PolicyRow, runs_page: str) -> Line:
    assert row.result is not None
    assert shown.metric_val is not None
    costs = {"bitops": float(shown.bitops)}
    costs |= {"file_bytes": float(shown.file_bytes)} if shown.file_bytes is not None else {}
    costs |= {f"latency[{one.device}]": one.latency_us for one in shown.latencies}
    return Line(
        cell=cell,
        budget=shown.name,
        values=values,
        bits=(shown.weight_bits, shown.activation_bits),
        costs=costs,
        val=shown.metric_val,
        test=shown.metric_deployed,
        run_id=row.result.runs[shown.name],
        simulated=shown.metric_simulated,
        ratios={one.device: one.ratio_to_float for one in shown.latencies if one.ratio_to_float is not None},
        run=f"{runs_page}{row.result.runs[shown.name]}" if runs_page else "",
        version=row.result.versions.get(shown.name, ""),
        was_cached=row.was_cached,
    )

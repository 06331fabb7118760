"""Whether a night is good: its gates, what differs since the last good night, who becomes champion."""

from collections.abc import Iterator
from dataclasses import dataclass

from flows.trace import changed_lines
from mixbit.errors import MixbitError
from mixbit.gates import Figures, Gates, Promotion, broken, is_better
from tasks import promotion
from tasks.compare import compare
from tasks.promotion import VAL
from tasks.sweep_content import Line, SweepContent
from tasks.tracking_runs import get_run


@dataclass(frozen=True)
class Broken:
    """One gate that does not hold; `changes` is everything that differs since the last good night."""

    budget: str
    gate: str
    says: str
    changes: tuple[str, ...] = ()

    def words(self) -> str:
        """One line; a cause is named only where nothing else differs."""
        if not self.changes:
            return f"{self.budget}: {self.gate}: {self.says}"
        what = "the cause" if len(self.changes) == 1 else f"one or several of {len(self.changes)} changes"
        return f"{self.budget}: {self.gate}: {self.says}; {what}: {'; '.join(self.changes)}"


def broken_gates(gates: Gates, content: SweepContent, url: str) -> list[Broken]:
    """Every gate of every budget that does not hold against the last good night, with what differs."""
    found = []
    for budget in content.budgets():
        best, before = content.best(budget), last_best(content, budget)
        told = list(broken(gates, figures(content, best), figures(content, before) if before else None))
        for gate, says in told:
            changes = _changes(url, before, best, gate) if before is not None else ()
            found.append(Broken(budget, gate, says, changes))
    return found


def last_best(content: SweepContent, budget: str) -> Line | None:
    """The best of the last good night."""
    lines = [line for line in content.before.values() if line.budget == budget]
    return content.best_of(lines) if lines else None


def figures(content: SweepContent, line: Line) -> Figures:
    """A line as gates see it; accuracy in points."""
    scale = content.scale
    return Figures(
        val=line.val * scale,
        maximize=content.maximize,
        simulated=line.simulated.value * scale if line.simulated else None,
        deployed=line.test.value * scale if line.test else None,
        file_bytes=line.costs.get("file_bytes"),
        latency=line.ratios,
    )


def _changes(url: str, before: Line, now: Line, gate: str) -> tuple[str, ...]:
    """What differs between two policies: code, parameters, data, dependencies; for latency also the devices."""
    try:
        return tuple(_differences(url, before, now, gate))
    except MixbitError as error:
        return (f"what differs is not known ({error})", "")


def _differences(url: str, before: Line, now: Line, gate: str) -> Iterator[str]:
    pairs = [(before.run_id, now.run_id)]
    if gate == "latency":
        profiles = [_profiles(url, line.run_id) for line in (before, now)]
        pairs += [(profiles[0][cell], profiles[1][cell]) for cell in profiles[1] if cell in profiles[0]]
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    yield from dict.fromkeys(line for pair in differing for line in changed_lines(compare(url, *pair)))


def _profiles(url: str, run_id: str) -> dict[str, str]:
    return {cell: run for cell, run in get_run(url, run_id).uses.items() if cell.startswith("profile.")}


def promoted(rule: Promotion, content: SweepContent, url: str, night: str) -> Iterator[str]:
    """Move each champion whose challenger is better; yields what moved. All gates must hold."""
    for budget in content.budgets():
        best = content.best(budget)
        if not best.version.startswith("models:/"):
            continue
        name = best.version.removeprefix("models:/").rpartition("/")[0]
        now = promotion.champion(url, name)
        if int(best.version.rpartition("/")[2]) in promotion.rejected(promotion.history(url, name)):
            yield f"{best.version} was rolled back from: promote it by hand"
            continue
        challenger = figures(content, best)
        if (
            now is None
            or VAL not in now.tags
            or is_better(challenger, float(now.tags[VAL]) * content.scale, rule.margin)
        ):
            made = promotion.promote(url, best.version, f"{night}: val {challenger.val:.4g}, cell {best.cell}")
            if now is None or made.version != now.version:
                yield f"models:/{name}@champion is version {made.version}"

"""What the page of a sweep is made of: one line per cell and budget, and the same line of the night before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.report_content import Measured

COSTS = {"bitops": "BitOps", "file_bytes": "file bytes"}


@dataclass(frozen=True)
class Line:
    """One policy of a night.

    Attributes:
        cell: its name.
        budget: its name.
        values: axis -> label.
        bits: mean weight and activation bits.
        costs: bitops, file_bytes, and `latency[device]` in us, as far as they are known.
        val: metric on val, which policies are chosen by.
        test: metric of the deployed file on test.
        run_id: MLflow run.
        simulated: metric of the network with fake quantizers on test.
        ratios: device -> latency relative to float in the same job.
        run: page of the MLflow run.
        version: registered version.
        was_cached: whether nothing had to be computed.
    """

    cell: str
    budget: str
    values: Mapping[str, str]
    bits: tuple[float, float]
    costs: Mapping[str, float]
    val: float
    run_id: str
    test: Measured | None = None
    simulated: Measured | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    run: str = ""
    version: str = ""
    was_cached: bool = False


@dataclass(frozen=True)
class SweepContent:
    """One night.

    Attributes:
        sweep: its name.
        metric: what the metric is called.
        maximize: which way it is better.
        lines: every policy.
        before: (cell, budget) -> its line of the last good night.
        failed: cell -> why.
        broken: gates that do not hold, a line each.
        facts: what else a reader may want to know.
    """

    sweep: str
    metric: str
    maximize: bool
    lines: Sequence[Line]
    before: Mapping[tuple[str, str], Line] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    broken: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """The factor by which the metric is shown and gates see it: accuracy in points."""
        return 100.0 if self.metric == "accuracy" else 1.0

    def budgets(self) -> list[str]:
        """In the order of the cells."""
        return list(dict.fromkeys(line.budget for line in self.lines))

    def best(self, budget: str) -> Line:
        """The best of this night."""
        return self.best_of([line for line in self.lines if line.budget == budget])

    def best_of(self, lines: Sequence[Line]) -> Line:
        """The best on val; of equal ones the cheaper in BitOps, then the first."""
        sign = -1 if self.maximize else 1
        return min(lines, key=lambda line: (sign * line.val, line.costs["bitops"]))

    def costs(self) -> list[str]:
        """Costs that some line has."""
        return list(dict.fromkeys(cost for line in self.lines for cost in line.costs))

    def front(self, cost: str) -> list[Line]:
        """Lines that no other beats in this cost and the metric on val, cheapest first."""
        return pareto([line for line in self.lines if cost in line.costs], cost, maximize=self.maximize)


def pareto(lines: Iterable[Line], cost: str, *, maximize: bool) -> list[Line]:
    """Those that no other is both as cheap and better than, or cheaper and as good; of equal ones the first."""
    sign = -1 if maximize else 1
    front: list[Line] = []
    for line in sorted(lines, key=lambda line: (line.costs[cost], sign * line.val)):
        if not front or sign * line.val < sign * front[-1].val:
            front.append(line)
    return front

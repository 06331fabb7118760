"""A budget that says how good: a few policies along the front are fine-tuned until the smallest good one is known."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mixbit.entries import Layers
from mixbit.errors import MixbitError
from mixbit.experiment import Smallest, Task
from policies.search import least_of_each
from tasks import policy

# Two policies whose costs are this close are one for the search: another fine-tuning would say little.
NEAR = 1.02
# A metric is a float32 mean over pictures; a drop of exactly what is allowed is allowed.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Try:
    """One policy that was tried: what it was allowed, what it costs, and how far the metric fell (None: not known)."""

    number: int
    limit: int
    policy: Any
    finetuned_model: Any
    cost: float | None = None
    drop: float | None = None


@dataclass(frozen=True)
class Range:
    """The least and the most that a policy may cost."""

    least: int
    most: int


def range_of(layers: Layers, search: policy.Params, cost: str) -> Range:
    """Between which costs every policy of a search lies.

    Args:
        layers: content of layers.json.
        search: candidates, fixed layers, groups and rules.
        cost: its name.
    """
    asked = policy.search_of(search, layers)
    dearest = [max(int(costs[cost]) for _, costs in row.values()) for row in asked.table.values()]
    return Range(int(least_of_each(asked)[cost]), sum(dearest))


@dataclass(frozen=True)
class Walk:
    """What was tried for one budget, in order."""

    wanted: Smallest
    tries: tuple[Try, ...]

    @property
    def end(self) -> Try | None:
        """The cheapest try that is good enough, or one that no run has judged yet; None when none is good enough."""
        good = [one for one in self.tries if one.drop is not None and _is_good(self.wanted, one.drop)]
        unjudged = [one for one in self.tries if one.drop is None]
        return next(iter(unjudged), None) or min(good, key=lambda one: (one.cost, one.number), default=None)

    def fault(self, budget: str) -> MixbitError:
        """The error where nothing was good enough: what the largest policy gave, and what came closest."""
        cost, best = self.wanted.cost, min(self.tries, key=lambda one: (one.drop, one.cost))
        largest = max(self.tries, key=lambda one: one.limit)
        what = f"even the largest policy, {cost} {_number(largest.cost)}, loses {_number(largest.drop)} on val"
        got = f"{_number(best.drop)} at best, with {cost} {_number(best.cost)}"
        hint = "Fine-tune longer, allow a larger metric_drop, or add larger num_bits"
        return MixbitError(budget, what, expected=f"at most {self.wanted.metric_drop:g}", got=got, hint=hint)

    def words(self) -> str:
        """What was tried, for the report."""
        cost = self.wanted.cost
        return "; ".join(f"{cost} {_number(one.cost)} loses {_number(one.drop)}" for one in self.tries)


def walk(wanted: Smallest, between: Range | None, attempt: Callable[[int, int], Try]) -> Walk:
    """Bisect the cost, on its logarithm: the metric is taken to rise with cost, which training noise may break.

    The dearest policy is tried last, when no smaller one was good enough.

    Args:
        wanted: the drop, the cost and the number of tries.
        between: where policies lie; None before that is known, when one try stands for all.
        attempt: (number, limit) -> a try; one that no run has judged ends the walk.
    """
    if between is None:
        return Walk(wanted, (attempt(1, 1),))
    tries: list[Try] = []
    low, high = float(between.least), float(between.most)
    while len(tries) < wanted.tries and (high > low * NEAR or not tries or _none_is_good(wanted, tries)):
        last_chance = tries and _none_is_good(wanted, tries) and (len(tries) == wanted.tries - 1 or high <= low * NEAR)
        limit = between.most if last_chance or wanted.tries == 1 else math.floor(math.sqrt(low * high))
        tried = attempt(len(tries) + 1, limit)
        tries.append(tried)
        if tried.drop is None or tried.cost is None or limit == between.most:
            break
        low, high = (low, tried.cost) if _is_good(wanted, tried.drop) else (float(limit), high)
    return Walk(wanted, tuple(tries))


def _is_good(wanted: Smallest, drop: float) -> bool:
    return drop <= wanted.metric_drop + ROUNDING


def _none_is_good(wanted: Smallest, tries: list[Try]) -> bool:
    return Walk(wanted, tuple(tries)).end is None


def drop(reference: Mapping[str, float], tried: Mapping[str, float], task: Literal["classification"] | Task) -> float:
    """How far the metric on val fell from the float model's: percentage points of accuracy, or its own unit."""
    fell = reference["val_metric"] - tried["val_metric"]
    if task == "classification":
        return 100 * fell
    return fell if task.direction == "maximize" else -fell


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"

"""What `mixbit solve` says of many budgets, of several tables, and of how far an answer holds."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.solve_table import Read, policy_object
from mixbit.errors import MisuseError
from mixbit.policy import Policy
from policies.front import Supported, front, supported
from policies.ilp import Allocation
from policies.stability import Agreement, Range, agreement
from policies.table import Table

Budgets = list[dict[str, int]]


def evenly(table: Table, costs: Sequence[str], number: int) -> Budgets:
    """Budgets from the least to the most of every cost at once, in equal steps.

    Ties are not asked, so the first of them may be below what is feasible.

    Raises:
        MisuseError: no costs.
    """
    if not costs:
        raise MisuseError("budgets", "no cost to draw a front over", hint="Name one or more costs, whatever the limit")
    ends = {
        name: [sum(pick(given[name] for _, given in row.values()) for row in table.values()) for pick in (min, max)]
        for name in costs
    }
    steps = max(1, number - 1)
    return [
        {name: -int(-(low + (high - low) * step / steps) // 1) for name, (low, high) in ends.items()}
        for step in range(number)
    ]


def solve_front(read: Read, number: int, time_limit_s: float) -> tuple[Budgets, list[Allocation], list[Supported]]:
    """(budgets, their answers, all supported policies where one cost is limited)."""
    costs = sorted(read.budgets)
    budgets = evenly(read.table, costs, number)
    found = front(read.table, budgets, read.ties, time_limit_s)
    return budgets, found, supported(read.table, costs[0], read.ties) if len(costs) == 1 else []


def front_object(budgets: Budgets, found: Sequence[Allocation], corners: Sequence[Supported]) -> dict[str, Any]:
    """The object that `--front N --json` prints."""
    rows = [
        {"budgets": budget, "status": one.status, "gap": one.gap or 0}
        | ({"objective": one.harm, "costs": one.costs, "policy": policy_object(one.policy)} if one.policy else {})
        for budget, one in zip(budgets, found, strict=True)
    ]
    return {"front": rows, "supported": [{"cost": one.cost, "objective": one.harm} for one in corners]}


def front_words(budgets: Budgets, found: Sequence[Allocation], corners: Sequence[Supported], seconds: float) -> str:
    """One row per budget: the limits, what is used of them, harm, and how many layers changed since the row before."""
    names = list(budgets[0])
    width = max(14, *map(len, names))
    head = [*(f"{name:>{width}}" for name in names), *(f"{'used':>{width}}" for _ in names)]
    lines = ["  ".join([*head, f"{'harm':>14}", "flips", "answer"])]
    before: Policy = {}
    for budget, one in zip(budgets, found, strict=True):
        used = [f"{one.costs[name] if one.policy else '-':>{width}}" for name in names]
        flips = sum(before[name] != entry for name, entry in one.policy.items()) if before and one.policy else "-"
        gap = f", gap {one.gap:.2g}" if one.gap else ""
        harm = f"{one.harm:.9g}" if one.policy else "-"
        limits = [f"{budget[name]:>{width}}" for name in names]
        lines.append("  ".join([*limits, *used, f"{harm:>14}", f"{flips:>5}", f"{one.status}{gap}"]))
        before = one.policy or before
    told = f"; {len(corners)} supported policies in all" if corners else ""
    return "\n".join([*lines, "", f"{len(found)} budgets in {seconds} s{told}"])


def ranges_words(ranges: Mapping[str, Range]) -> str:
    """Over which budgets the answer stays the best."""
    rows = []
    for name, one in ranges.items():
        rows.append(
            f"{name:<12} best from {one.least} on, with any more of it"
            if one.below is None
            else f"{name:<12} best from {one.least} to below {one.below}"
        )
    kept = ", the other limits kept" if len(ranges) > 1 else ""
    return "\n".join([f"stays optimal{kept}:", *rows])


def ranges_object(ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The same for `--json`."""
    return {name: {"least": one.least, "below": one.below} for name, one in ranges.items()}


def named(paths: Sequence[Path], reads: Sequence[Read]) -> dict[str, Read]:
    """Tables by a name each: the file's, with its folder where files are called alike.

    Raises:
        MisuseError: a file twice; files that limit or tie otherwise than the first.
    """
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise MisuseError("problems", "a file is named twice", hint="Name each table once")
    for name, read in zip(names, reads, strict=True):
        if (read.budgets, read.ties) != (reads[0].budgets, reads[0].ties):
            raise MisuseError(name, f"its budgets or groups differ from {names[0]}", hint="Ask all the same")
    return dict(zip(names, reads, strict=True))


def compared(reads: Mapping[str, Read], time_limit_s: float) -> Agreement:
    """Every table solved, and how far the answers agree."""
    first = next(iter(reads.values()))
    tables = {name: read.table for name, read in reads.items()}
    return agreement(tables, first.budgets, first.ties, time_limit_s)


def agreement_object(found: Agreement) -> dict[str, Any]:
    """The object that several tables with `--json` print."""
    pairs = [
        {"tables": list(pair), "flips": flips, "rank_correlation": found.correlations[pair]}
        for pair, flips in found.flips.items()
    ]
    answers = {
        name: {"status": one.status, "objective": one.harm, "gap": one.gap or 0, "policy": policy_object(one.policy)}
        for name, one in found.answers.items()
    }
    return {"mean_flips": found.mean_flips, "most_flips": found.most_flips, "pairs": pairs, "answers": answers}


def agreement_words(found: Agreement, seconds: float) -> str:
    """Pairs of tables, then the layers on whose bits they differ."""
    width = max(5, *map(len, found.answers))
    lines = [f"{'table':<{width}}  {'table':<{width}}  flips  rank correlation"]
    for a, b in itertools.combinations(found.answers, 2):
        value = found.correlations[a, b]
        told = "none: all equal" if value is None else f"{value:.3f}"
        lines.append(f"{a:<{width}}  {b:<{width}}  {found.flips[a, b]:>5}  {told:>16}")
    policies = [one.policy for one in found.answers.values()]
    layers = [name for name in policies[0] if len({policy[name] for policy in policies}) > 1]
    total = f"mean {found.mean_flips:.2g}, most {found.most_flips} of {len(policies[0])} layers flip, {seconds} s"
    if layers:
        wide = max(map(len, [*layers, "layer"]))
        lines += ["", f"{'layer':<{wide}}  " + "  ".join(found.answers)]
    for name in layers:
        bits = (f"w{p[name][0]} a{p[name][1]}".ljust(len(t)) for t, p in zip(found.answers, policies, strict=True))
        lines.append(f"{name:<{wide}}  " + "  ".join(bits).rstrip())
    return "\n".join([*lines, "", total])


def draw(path: Path, found: Sequence[Allocation], corners: Sequence[Supported], cost: str) -> None:
    """Harm over one cost: the budgets' answers, on the line through all supported policies; the suffix says the format.

    Raises:
        MisuseError: the file can't be written.
    """
    from tasks.report_canvas import GREY, WEIGHT, blank_figure

    with blank_figure(6.0, 4.0) as figure:
        axes = figure.subplots()
        axes.plot([one.cost for one in corners], [one.harm for one in corners], color=GREY, linewidth=1)
        answers = [one for one in found if one.policy]
        axes.plot([one.costs[cost] for one in answers], [one.harm for one in answers], "o", color=WEIGHT, markersize=4)
        axes.set(xlabel=cost, ylabel="harm")
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise MisuseError(str(path), f"cannot be written: {error}", hint="Name a .svg or .png file") from None

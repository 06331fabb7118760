"""`mixbit solve`: the allocation for a foreign table, one budget or many, without any model."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from flows.solve_table import Read, policy_object, read_problem
from mixbit.errors import MisuseError, MixbitError
from mixbit.policy import Entry
from policies.ilp import Allocation, allocate


@click.command()
@click.argument("problems", metavar="PROBLEM...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--front",
    "number",
    type=click.IntRange(2, 10_000),
    help="Solve this many budgets, from the least to the most of the costs that the file's budgets name.",
)
@click.option(
    "--indicators",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Take harms from an indicators.json instead; several are compared like several problems.",
)
@click.option("--ranges", is_flag=True, help="Say over which budgets the answer stays the best.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="With --front: draw harm over cost in this .svg or .png file."
)
@click.option(
    "--time-limit",
    "time_limit_s",
    default=60,
    show_default=True,
    type=click.IntRange(1, 10**6),
    help="Seconds after which the best policy known is given, with its gap.",
)
def solve(
    problems: tuple[Path, ...],
    *,
    as_json: bool,
    number: int | None,
    indicators: tuple[Path, ...],
    ranges: bool,
    plot: Path | None,
    time_limit_s: int,
) -> None:
    """Choose bits from a table of harms and costs; exit 0 only when the answer is proven best.

    PROBLEM is a JSON file: {"layers": [{"name": "conv1", "choices": [{"weight_bits": 4, "activation_bits": 4,
    "harm": 0.12, "costs": {"bitops": 1000}}]}], "groups": [["conv2", "conv3"]], "budgets": {"bitops": 5000}}

    Several files are tables of several seeds or proxy draws: how many layers flip between their answers.

    Example: mixbit solve problem.json --front 20
    """
    try:
        tables = indicators or problems
        _check_options(tables, number, ranges=ranges, plot=plot)
        started = time.monotonic()
        reads = _judged(problems, indicators) if indicators else [read_problem(path) for path in problems]
        if len(reads) > 1:
            done = _compare(tables, reads, time_limit_s, started)
        elif number is not None:
            done = _front(reads[0], number, plot, time_limit_s, started)
        else:
            done = _one(reads[0], ranges, time_limit_s, started)
    except MixbitError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    told, words, proven = done
    click.echo(json.dumps(told, allow_nan=False) if as_json else words)
    sys.exit(0 if proven else 1)


Done = tuple[dict[str, Any], str, bool]  # for --json, for a reader, whether all is proven


def _check_options(problems: tuple[Path, ...], number: int | None, *, ranges: bool, plot: Path | None) -> None:
    if len(problems) > 1 and (number is not None or ranges):
        raise MisuseError("solve", "--front and --ranges are of one file", got=f"{len(problems)} files")
    if number is not None and ranges:
        raise MisuseError("solve", "--ranges is of one budget, --front of many", hint="Leave one of them out")
    if plot is not None and number is None:
        raise MisuseError("solve", "--plot draws what --front solves", hint="Add --front 20")


def _judged(problems: tuple[Path, ...], indicators: tuple[Path, ...]) -> list[Read]:
    from flows.solve_indicators import with_indicators

    if len(problems) > 1:
        raise MisuseError("solve", "--indicators judge one problem", got=f"{len(problems)} problems")
    read = read_problem(problems[0])
    return [with_indicators(read, path) for path in indicators]


def _seconds(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _one(read: Read, ranges: bool, time_limit_s: int, started: float) -> Done:
    found = allocate(read.table, read.budgets, read.ties, time_limit_s)
    told, words = answer(found, _seconds(started)), shown(found, read, _seconds(started))
    if ranges and found.policy:
        from flows.solve_front import ranges_object, ranges_words
        from policies.stability import stays_optimal

        stable = stays_optimal(read.table, read.budgets, found.policy, read.ties, time_limit_s)
        told, words = told | {"stays_optimal": ranges_object(stable)}, f"{words}\n\n{ranges_words(stable)}"
    return told, words, found.status == "optimal"


def _front(read: Read, number: int, plot: Path | None, time_limit_s: int, started: float) -> Done:
    from flows.solve_front import draw, front_object, front_words, solve_front

    budgets, found, corners = solve_front(read, number, time_limit_s)
    if plot is not None:
        draw(plot, found, corners, min(read.budgets))
    words = front_words(budgets, found, corners, _seconds(started))
    proven = all(one.status in {"optimal", "infeasible"} for one in found)
    return front_object(budgets, found, corners), words, proven


def _compare(problems: tuple[Path, ...], reads: list[Read], time_limit_s: int, started: float) -> Done:
    from flows.solve_front import agreement_object, agreement_words, compared, named

    found = compared(named(problems, reads), time_limit_s)
    proven = all(one.status == "optimal" for one in found.answers.values())
    return agreement_object(found), agreement_words(found, _seconds(started)), proven


def answer(found: Allocation, seconds: float) -> dict[str, Any]:
    """The object that `--json` prints."""
    if found.status == "infeasible":
        return {"status": found.status, "smallest_feasible": found.smallest_feasible}
    if found.status == "undecided":
        return {"status": found.status, "seconds": seconds}
    return {
        "status": found.status,
        "objective": found.harm,
        "policy": policy_object(found.policy),
        "costs": found.costs,
        "gap": found.gap or 0,
        "seconds": seconds,
    }


def shown(found: Allocation, read: Read, seconds: float) -> str:
    """The answer for a reader."""
    if found.status == "infeasible":
        rows = [f"{name:<12} {value} (budget {read.budgets[name]})" for name, value in found.smallest_feasible.items()]
        kept = ", each with the other limits kept where they can be" if len(read.budgets) > 1 else ""
        return "\n".join([f"infeasible: no policy fits. Smallest feasible{kept}:", *rows])
    if found.status == "undecided":
        return f"undecided: no policy found in {seconds} s, and no proof that there is none"
    width = max(len("layer"), *map(len, found.policy))
    lines = [
        f"{'layer':<{width}}  weight_bits  activation_bits",
        *(_row(n, e, width) for n, e in found.policy.items()),
        "",
    ]
    for name, value in found.costs.items():
        lines.append(f"{name:<12} {value}" + (f" of {read.budgets[name]}" if name in read.budgets else ""))
    proof = "proven optimal" if not found.gap else f"{found.status}, gap {found.gap:.2g}"
    return "\n".join([*lines, f"{'harm':<12} {found.harm:.9g}", f"{proof}, {seconds} s"])


def _row(name: str, entry: Entry, width: int) -> str:
    return f"{name:<{width}}  {entry[0]:>11}  {entry[1]:>15}"

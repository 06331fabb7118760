"""`mixbit solve`: the allocation for a foreign table, without any model."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from flows.solve_table import Read, read_problem
from mixbit.errors import MixbitError
from mixbit.policy import Entry
from policies.ilp import Allocation, allocate


@click.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--time-limit",
    "time_limit_s",
    default=60,
    show_default=True,
    type=click.IntRange(1, 10**6),
    help="Seconds after which the best policy known is given, with its gap.",
)
def solve(problem: Path, as_json: bool, time_limit_s: int) -> None:
    """Choose bits from a table of harms and costs; exit 0 only when the answer is proven best.

    PROBLEM is a JSON file: {"layers": [{"name": "conv1", "choices": [{"weight_bits": 4, "activation_bits": 4,
    "harm": 0.12, "costs": {"bitops": 1000}}]}], "groups": [["conv2", "conv3"]], "budgets": {"bitops": 5000}}

    Example: mixbit solve problem.json --json
    """
    try:
        started = time.monotonic()
        read = read_problem(problem)
        found = allocate(read.table, read.budgets, read.ties, time_limit_s)
    except MixbitError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        click.echo(json.dumps(answer(found, seconds), allow_nan=False))
    else:
        click.echo(shown(found, read, seconds))
    sys.exit(0 if found.status == "optimal" else 1)


def answer(found: Allocation, seconds: float) -> dict[str, Any]:
    """The object that `--json` prints."""
    if found.status == "infeasible":
        return {"status": found.status, "smallest_feasible": found.smallest_feasible}
    if found.status == "undecided":
        return {"status": found.status, "seconds": seconds}
    policy = {name: {"weight_bits": w, "activation_bits": a} for name, (w, a) in found.policy.items()}
    return {
        "status": found.status,
        "objective": found.harm,
        "policy": policy,
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

"""Seconds and proven gap of the allocation: 25 entries a layer, one and two limits, random tables with a fixed seed.

One budget at a time, 100 budgets in one call, and PuLP with CBC beside them (one limit, one budget, its gap is 0).
Seconds are of the wall; `cpu_seconds` say what a busy machine would have needed alone, but not of CBC, which is a
process of its own.

Example: .venv/bin/python benchmarks/allocation.py
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from machine import machine

from policies.front import front
from policies.ilp import allocate

BITS = (2, 3, 4, 6, 8)
REPEATS = 3
BUDGETS = 100
LAYERS = (21, 200, 1000)


def table(layers: int, seed: int) -> dict:
    """Layers whose harm falls with bits, each with (weight, activation) entries and two costs."""
    rng = random.Random(seed)
    made = {}
    for index in range(layers):
        macs, weights, fragile = rng.randint(10**5, 10**7), rng.randint(10**3, 10**6), rng.random()
        made[f"layer{index}"] = {
            (w, a): (
                fragile * (2.0**-w + 2.0**-a) * rng.uniform(0.9, 1.1),
                {"bitops": macs * w * a, "size_bits": weights * w},
            )
            for w in BITS
            for a in BITS
        }
    return made


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, dict[str, float]]:
    """What the last call gives, and the median seconds of all."""
    wall, cpu, found = [], [], None
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        found = call()
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return found, {
        "seconds_median": round(statistics.median(wall), 4),
        "cpu_seconds_median": round(statistics.median(cpu), 4),
    }


def with_cbc(problem: dict, limits: dict) -> None:
    """The same budget by PuLP with CBC, as a script would: all entries, floats, relative gap 0."""
    import pulp

    model = pulp.LpProblem("allocation", pulp.LpMinimize)
    x = {
        n: {e: pulp.LpVariable(f"x_{n}_{e[0]}_{e[1]}", cat="Binary") for e in entries} for n, entries in problem.items()
    }
    rows = [(x[n][e], harm, costs) for n, entries in problem.items() for e, (harm, costs) in entries.items()]
    model += pulp.lpSum(harm * v for v, harm, _ in rows)
    for one in x.values():
        model += pulp.lpSum(one.values()) == 1
    for name, limit in limits.items():
        model += pulp.lpSum(costs[name] * v for v, _, costs in rows) <= limit
    model.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=0))


def budgets(problem: dict, names: tuple[str, ...]) -> list[dict[str, int]]:
    """From the least to nearly the most of every cost, evenly."""
    ends = {
        n: [sum(of(c[n] for _, c in entries.values()) for entries in problem.values()) for of in (min, max)]
        for n in names
    }
    return [{n: low + (high - low) * i // BUDGETS for n, (low, high) in ends.items()} for i in range(BUDGETS)]


def one_budget(layers: int, names: tuple[str, ...]) -> dict[str, Any]:
    """One budget by `allocate`; with one cost by `front` and by CBC too."""
    problem = table(layers, seed=layers)
    limits = {name: sum(entries[4, 4][1][name] for entries in problem.values()) for name in names}
    found, told = timed(lambda: allocate(problem, limits))
    row = {"layers": layers, "limits": len(names), **told, "status": found.status, "gap": found.gap}
    if len(names) == 1:
        row["by_front"] = timed(lambda: front(problem, [limits]))[1]
        row["by_cbc"] = timed(lambda: with_cbc(problem, limits))[1]
    return row


def many_budgets(layers: int, names: tuple[str, ...]) -> dict[str, Any]:
    """All budgets by `front`."""
    problem = table(layers, seed=layers)
    asked = budgets(problem, names)
    found, told = timed(lambda: front(problem, asked, time_limit_s=600), repeats=1)
    statuses = sorted({one.status for one in found})
    row = {"layers": layers, "limits": len(names), "budgets": len(asked), **told}
    return row | {"statuses": statuses, "largest_gap": max(one.gap for one in found)}


def main() -> None:
    """Print one JSON object."""
    cases = [(layers, names) for layers in LAYERS for names in (("bitops",), ("bitops", "size_bits"))]
    rows = [one_budget(*case) for case in cases]
    fronts = [many_budgets(*case) for case in cases]
    print(json.dumps({"rows": rows, "fronts": fronts, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

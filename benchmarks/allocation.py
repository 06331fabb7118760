"""Seconds and proven gap of the allocation: 25 entries a layer, one and two limits, random tables with a fixed seed.

Example: .venv/bin/python benchmarks/allocation.py
"""

import json
import random
import statistics
import time

from machine import machine

from policies.ilp import allocate

BITS = (2, 3, 4, 6, 8)
REPEATS = 3


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


def main() -> None:
    """Print one JSON object."""
    rows = []
    for layers in (21, 200, 1000):
        for names in (("bitops",), ("bitops", "size_bits")):
            problem = table(layers, seed=layers)
            limits = {name: sum(entries[4, 4][1][name] for entries in problem.values()) for name in names}
            times = []
            for _ in range(REPEATS):
                began_s = time.perf_counter()
                found = allocate(problem, limits)
                times.append(time.perf_counter() - began_s)
            rows.append(
                {
                    "layers": layers,
                    "limits": len(names),
                    "seconds_median": round(statistics.median(times), 3),
                    "status": found.status,
                    "gap": found.gap,
                }
            )
    print(json.dumps({"rows": rows, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

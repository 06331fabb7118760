"""What the cache costs: `plan` and a cached `run` beside DVC and Prefect's own cache; per stage by part; as it grows.

Example: .venv/bin/python benchmarks/cache.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cache_graph
from cache_case import ROOT, Case, make, seconds
from cache_growth import lookup_ms, plan_seconds
from machine import machine

from flows.servers import Servers, ensure, stop_all

REPEATS = 5
CELLS = (10, 100, 1000)
RUNS = (1000, 10_000, 100_000)


def main() -> None:
    """Print one JSON object."""
    with tempfile.TemporaryDirectory() as name:
        folder, load = Path(name), os.getloadavg()[0]
        case = make(folder / "experiment")
        try:
            servers = ensure(case.state)
            case.mixbit("run", str(case.file))
            figures = {
                "cached": cached(case, servers, folder),
                "overhead": overhead(case),
                "growth": growth(case, servers),
            }
        finally:
            stop_all(case.state)
    print(
        json.dumps({**figures, "load": [round(load, 1), round(os.getloadavg()[0], 1)], "machine": machine()}, indent=2)
    )


def cached(case: Case, servers: Servers, folder: Path) -> dict[str, dict[str, float]]:
    """Whole processes that find everything, on an equal graph, taking turns."""
    reads = cache_graph.reads_of(case)
    own = {**os.environ, "PREFECT_API_URL": servers.prefect_api_url, "PREFECT_HOME": str(folder / "prefect-home")}
    cache_graph.dvc(folder / "dvc", reads, dict(os.environ))
    cache_graph.prefect(folder / "prefect", reads, own)
    acts: dict[str, Callable[[], float]] = {
        "mixbit plan --offline": lambda: case.mixbit("plan", "--offline", str(case.file)),
        "mixbit plan": lambda: case.mixbit("plan", str(case.file)),
        "mixbit run, cached": lambda: case.mixbit("run", str(case.file)),
        "dvc repro, no-op": lambda: seconds([sys.executable, "-m", "dvc", "repro"], folder / "dvc", dict(os.environ)),
        "Prefect flow, cached": lambda: seconds([sys.executable, "graph.py"], folder / "prefect", own),
    }
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(REPEATS):
        for name, act in acts.items():
            times[name].append(act())
    return {"stages": len(reads)} | {
        name: {"median_s": round(statistics.median(one), 2), "min_s": round(min(one), 2), "max_s": round(max(one), 2)}
        for name, one in times.items()
    }


def overhead(case: Case) -> dict[str, object]:
    """Milliseconds per stage, by part."""
    command = [sys.executable, "benchmarks/cache_parts.py", str(case.file)]
    done = subprocess.run(command, cwd=ROOT, env=case.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def growth(case: Case, servers: Servers) -> dict[str, list[dict[str, float]]]:
    """Cells for the plan, runs for the look-up on the server."""
    database = case.state / "mlflow" / "mlflow.db"
    return {
        "plan": [plan_seconds(case, cells) for cells in CELLS],
        "look-up on the server": [lookup_ms(servers.mlflow_url, database, runs) for runs in RUNS],
    }


if __name__ == "__main__":
    main()

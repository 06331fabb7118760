"""Seconds of the demo's run in an empty state folder, of the unchanged run after it, and of a plan; whole processes.

Example: .venv/bin/python benchmarks/demo.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "experiments/digits.yaml"
REPEATS = 5


def seconds(*arguments: str, environment: dict[str, str]) -> float:
    """Wall seconds of one `mixbit` command."""
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


def main() -> None:
    """Print one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MIXBIT_HOME": folder}
        try:
            figures = {"first_run_with_server_start_s": seconds("run", EXPERIMENT, environment=environment)}
            for name, arguments in {"unchanged_run_s": ("run", EXPERIMENT), "plan_s": ("plan", EXPERIMENT)}.items():
                times = [seconds(*arguments, environment=environment) for _ in range(REPEATS)]
                figures |= {f"{name}_median": statistics.median(times), f"{name}_max": max(times)}
        finally:
            seconds("down", environment=environment)
    print(json.dumps({name: round(value, 2) for name, value in figures.items()} | {"machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

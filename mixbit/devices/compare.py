"""Several files of one network beside its float reference, each whole: by the protocol of `measure.py`.

Run as a program: request JSON on standard input, figures JSON on standard output.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixbit.devices.device import FLOAT, Request
from mixbit.devices.measure import (
    Round,
    bound_call,
    contention,
    run_rounds,
    seconds,
    timed_calls,
    usable_rounds,
    with_limits,
)
from mixbit.devices.parent import end_with_parent


def compare(request: Request) -> dict[str, Any]:
    """Latencies of all models of a request, `float` among them.

    Returns:
        {"models": {model: {"latency_us", "ratio_to_float": {"median", "p10", "p90"}}}, "contention", "rounds",
        "clock"}. `latency_us` is the median ratio times the median of float: drift between rounds cancels out.
    """
    request = with_limits(request)
    rng = np.random.default_rng(request.seed)
    calls = {name: bound_call(path, request, rng) for name, path in request.models.items()}
    timed = {name: timed_calls(call, request) for name, call in calls.items()}
    rounds = run_rounds(calls, timed, request, rng)
    usable = usable_rounds(rounds, request)
    return {
        "models": {name: _figures(name, usable, request) for name in request.models},
        "rounds": {"kept": len(usable), "discarded": len(rounds) - len(usable)},
        "contention": contention(rounds, request),
        "clock": "cpu" if request.threads == 1 else "wall",
    }


def _figures(name: str, rounds: Sequence[Round], request: Request) -> dict[str, Any]:
    reference = statistics.median(seconds(entry[FLOAT], request) for entry in rounds)
    ratios = [seconds(entry[name], request) / seconds(entry[FLOAT], request) for entry in rounds]
    p10, median, p90 = (float(np.quantile(ratios, q)) for q in (0.1, 0.5, 0.9))
    spread = {"median": median, "p10": p10, "p90": p90}
    return {"latency_us": median * reference * 1e6, "ratio_to_float": spread}


if __name__ == "__main__":
    end_with_parent()
    json.dump(compare(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

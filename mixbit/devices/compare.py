"""Several files of one network beside its float reference, each whole: by the protocol of `measure.py`.

Run as a program: request JSON on standard input, figures JSON on standard output.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from mixbit.devices.device import FLOAT, Request
from mixbit.devices.measure import Round, conditions, ratio, seconds, timed_rounds, usable_rounds, with_limits
from mixbit.devices.parent import end_with_parent


def compare(request: Request) -> dict[str, Any]:
    """Latencies of all models of a request, `float` among them.

    Returns:
        {"models": {model: {"latency_us", "ratio_to_float": {"median", "p10", "p90"}}}, "contention", "throttling",
        "rounds", "clock"}. `latency_us` is the median ratio times the median of float: drift from one round to the next
        cancels out.
    """
    request = with_limits(request)
    _, rounds = timed_rounds(request)
    usable = usable_rounds(rounds, request)
    return {"models": {name: _figures(name, usable, request) for name in request.models}} | conditions(
        rounds, usable, request
    )


def _figures(name: str, rounds: Sequence[Round], request: Request) -> dict[str, Any]:
    reference = statistics.median(seconds(entry[FLOAT], request) for entry in rounds)
    spread = ratio(name, FLOAT, rounds, request)
    return {"latency_us": spread["median"] * reference * 1e6, "ratio_to_float": spread}


if __name__ == "__main__":
    end_with_parent()
    json.dump(compare(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

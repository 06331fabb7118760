"""The measuring protocol: interleaved hot blocks, references in the same run, ratios rather than times.

Each round times every model once, in random order: a block is some untimed calls (caches and branch predictors get
hot) and then timed ones. Alternating single calls would measure cold caches instead; long blocks would let the machine
drift between candidates. Ratios are formed within a round and their median is taken over rounds. Rounds in which the
float reference is more than 5 % off its median are discarded. CPU time of the thread stands beside wall time: it is
steadier, and wall / CPU tells of others on the machine.

Run as a program: request JSON on standard input, figures JSON on standard output.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixbit.devices.backend import load_backend
from mixbit.devices.device import FLOAT, MODEL, W8A8, Request
from mixbit.devices.parent import end_with_parent
from mixbit.devices.throttling import clocks, slowdown

MIN_ROUNDS, MIN_WARM, MIN_TIMED, MAX_TIMED = 10, 3, 10, 5000
LARGEST_DRIFT = 0.05
# Wall / CPU of one thread alone is near 1; beyond these someone else was on the core.
CONTENTION_MEDIAN, CONTENTION_P90 = 1.1, 1.5

Call = Callable[[], object]


@dataclass(frozen=True)
class Block:
    """Median seconds of one call, by the wall and by the thread's CPU clock."""

    wall_s: float
    cpu_s: float


Round = dict[str, Block]


def measure(request: Request) -> dict[str, Any]:
    """Figures of one request; also documented in docs and profile.json.

    Returns:
        {"latency_us": {model: {"wall", "cpu", and of each "_p10" and "_p90"}},
        "ratios": {reference: {"median", "p10", "p90"}}, "rounds": {"kept", "discarded"},
        "contention": {"median", "p90", "alarm"}, "throttling": {"slowed", "alarm"}, "clock": "cpu" or "wall",
        "clocks": {"before", "after": what `throttling.clocks` finds}}.
    """
    request = with_limits(request)
    before = clocks()
    timed, rounds = timed_rounds(request)
    return summarize(rounds, request) | {"timed_calls": timed, "clocks": {"before": before, "after": clocks()}}


def timed_rounds(request: Request) -> tuple[dict[str, int], list[Round]]:
    """(calls that a block times, by model; rounds) of all models of a request within its limits."""
    rng = np.random.default_rng(request.seed)
    calls = {name: bound_call(path, request, rng) for name, path in request.models.items()}
    timed = {name: timed_calls(call, request) for name, call in calls.items()}
    return timed, run_rounds(calls, timed, request, rng)


def with_limits(request: Request) -> Request:
    """The request, its counts raised to the protocol's lower limits."""
    return replace(
        request,
        rounds=max(MIN_ROUNDS, request.rounds),
        warm_calls=max(MIN_WARM, request.warm_calls),
        timed_calls=max(MIN_TIMED, request.timed_calls),
    )


def run_rounds(
    calls: dict[str, Call], timed: dict[str, int], request: Request, rng: np.random.Generator
) -> list[Round]:
    """Rounds until enough are usable, at most twice as many as asked, none started after the time limit."""
    rounds: list[Round] = []
    names, end = sorted(calls), time.perf_counter() + request.limit_s
    while len(rounds) < 2 * request.rounds and time.perf_counter() < end:
        order = [names[i] for i in rng.permutation(len(names))]
        rounds.append({name: time_block(calls[name], request.warm_calls, timed[name]) for name in order})
        if len(kept(rounds, request)) >= request.rounds:
            break
    return rounds


def time_block(call: Call, warm: int, timed: int) -> Block:
    """One hot block."""
    for _ in range(warm):
        call()
    walls, cpus = [], []
    for _ in range(timed):
        cpu, wall = time.thread_time(), time.perf_counter()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
    return Block(statistics.median(walls), statistics.median(cpus))


def kept(rounds: Sequence[Round], request: Request) -> list[Round]:
    """Rounds in which the float reference stays within 5 % of its median; all of them without such a reference."""
    if FLOAT not in request.models or not rounds:
        return list(rounds)
    times = [seconds(entry[FLOAT], request) for entry in rounds]
    middle = statistics.median(times)
    return [entry for entry, value in zip(rounds, times, strict=True) if abs(value - middle) <= LARGEST_DRIFT * middle]


def usable_rounds(rounds: Sequence[Round], request: Request) -> list[Round]:
    """Those of `kept`; all of them when fewer than three are kept."""
    usable = kept(rounds, request)
    return usable if len(usable) >= 3 else list(rounds)


def contention(rounds: Sequence[Round], request: Request) -> dict[str, Any]:
    """Wall time over CPU time of all blocks, and whether others disturbed too much."""
    pressure = [block.wall_s / max(block.cpu_s, 1e-9) for entry in rounds for block in entry.values()]
    median, p90 = (float(np.quantile(pressure, q)) for q in (0.5, 0.9))
    alarm = request.threads == 1 and (median > CONTENTION_MEDIAN or p90 > CONTENTION_P90)
    return {"median": median, "p90": p90, "alarm": alarm}


def seconds(block: Block, request: Request) -> float:
    """The clock that ratios use: CPU time of the one thread; wall when there are more."""
    return block.cpu_s if request.threads == 1 else block.wall_s


def summarize(rounds: Sequence[Round], request: Request) -> dict[str, Any]:
    """Medians and spreads over the usable rounds; over all of them when fewer than three are usable."""
    usable = usable_rounds(rounds, request)
    references = [name for name in (FLOAT, W8A8) if name in request.models]
    return {
        "latency_us": {name: _latency(name, usable) for name in request.models},
        "ratios": {name: ratio(MODEL, name, usable, request) for name in references},
    } | conditions(rounds, usable, request)


def conditions(rounds: Sequence[Round], usable: Sequence[Round], request: Request) -> dict[str, Any]:
    """Under which figures of rounds came about: how many count, who else was on the machine, did it keep its pace."""
    reference = [seconds(entry[FLOAT], request) for entry in rounds if FLOAT in entry]
    return {
        **({"throttling": slowdown(reference)} if reference else {}),
        "rounds": {"kept": len(usable), "discarded": len(rounds) - len(usable)},
        "contention": contention(rounds, request),
        "clock": "cpu" if request.threads == 1 else "wall",
    }


def _latency(name: str, rounds: Sequence[Round]) -> dict[str, float]:
    walls, cpus = ([getattr(entry[name], clock) * 1e6 for entry in rounds] for clock in ("wall_s", "cpu_s"))
    found = {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}
    for clock, times in (("wall", walls), ("cpu", cpus)):
        found |= {f"{clock}_{mark}": float(np.quantile(times, q)) for mark, q in (("p10", 0.1), ("p90", 0.9))}
    return found


def ratio(model: str, reference: str, rounds: Sequence[Round], request: Request) -> dict[str, float]:
    """Median and spread, over rounds, of what one model takes relative to another."""
    values = [seconds(entry[model], request) / seconds(entry[reference], request) for entry in rounds]
    return {name: float(np.quantile(values, q)) for name, q in (("median", 0.5), ("p10", 0.1), ("p90", 0.9))}


def bound_call(path: str, request: Request, rng: np.random.Generator) -> Call:
    """One run of a file on random pictures; the same memory is read and written each time."""
    pictures = rng.standard_normal((request.batch_size, *request.input_shape), dtype=np.float32)
    opened = load_backend(request.backend).open_file(Path(path), threads=request.threads, shape=pictures.shape)
    return opened.bound(pictures)


def timed_calls(call: Call, request: Request) -> int:
    """How many calls a block times."""
    # Short calls need many in a block: a timer tick or one interrupt must not decide it.
    typical = time_block(call, request.warm_calls, request.timed_calls).wall_s
    wanted = math.ceil(request.block_s / max(typical, 1e-9))
    return min(MAX_TIMED, max(request.timed_calls, wanted))


if __name__ == "__main__":
    end_with_parent()
    json.dump(measure(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

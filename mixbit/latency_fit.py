"""Fitting a latency table: which policies to measure, what scale and boundaries explain them, and how well.

Kernel times alone miss what a change of precision costs between them, and profilers slow what they watch: both are
put right by policies that are measured whole.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mixbit.errors import MixbitError
from mixbit.latency import Table, change, executed
from mixbit.policy import FLOAT_ENTRY, Entry, Policy, is_float

# Times are told in whole nanoseconds.
DECIMALS = 3
# How often precision changes from one layer to the next, and how many layers are int8: mixed in many ways.
CHANGES, SHARES = (0.2, 0.5, 1.0), (0.3, 0.5, 0.7)
TRIES = 50

Array = npt.NDArray[np.float64]
Neighbours = Mapping[tuple[str, str], int]


def mixed_policies(widest: Policy, shared: Sequence[Sequence[str]], count: int, seed: int) -> list[dict[str, Entry]]:
    """Random policies of float and int8 layers, no two alike and none uniform; fewer than `count` where there are none.

    Args:
        widest: the policy with most int8 layers; its float layers stay float.
        shared: layers that read one tensor, and so share precision.
        count: how many.
        seed: of the choice.
    """
    rng, found = np.random.default_rng(seed), dict[tuple[bool, ...], dict[str, Entry]]()
    uniform = {tuple(is_float(entry) for entry in widest.values()), (True,) * len(widest)}
    for _ in range(TRIES * count):
        policy = _mixed(widest, shared, rng)
        vector = tuple(is_float(entry) for entry in policy.values())
        if vector not in uniform and len(found) < count:
            found.setdefault(vector, policy)
    return list(found.values())


def _mixed(widest: Policy, shared: Sequence[Sequence[str]], rng: np.random.Generator) -> dict[str, Entry]:
    change, share = float(rng.choice(CHANGES)), float(rng.choice(SHARES))
    policy, is_int8 = dict[str, Entry](), rng.random() < share
    for name, entry in widest.items():
        is_int8 = rng.random() < share if rng.random() < change else is_int8
        policy[name] = entry if is_int8 else FLOAT_ENTRY
    for group in shared:
        policy |= {name: FLOAT_ENTRY for name in group if any(is_float(policy[other]) for other in group)}
    return policy


def average_alike(times: Mapping[str, float], alike: Mapping[str, object]) -> dict[str, float]:
    """Times with those of layers that do the same work averaged.

    Args:
        times: layer -> us.
        alike: layer -> a description of its work.
    """
    found: dict[object, list[float]] = {}
    for name, us in times.items():
        found.setdefault(alike[name], []).append(us)
    return {name: float(np.mean(found[alike[name]])) for name in times}


def calibrated(
    kernels: Mapping[str, Mapping[str, float]],
    neighbours: Neighbours,
    measured: Sequence[tuple[Policy, float]],
    held_out: Sequence[tuple[Policy, float]],
    reference_us: Mapping[str, float],
) -> tuple[Table, dict[str, float]]:
    """The table that fits, and how well it does on policies that it has not seen.

    Args:
        kernels: layer -> {float, int8}, us from profiles of uniform files.
        neighbours: (layer, reader) -> elements between them.
        measured: policies and what they take as a whole, us; uniform ones among them.
        held_out: more of them, to judge by.
        reference_us: `float` and `w8a8`, measured whole.

    Returns:
        (the table, {"scale", "boundary_us", "quantized_us" and "dequantized_us" (an element from float to int8, and
        back), "offset_us"} and what `judge` says of it).

    Raises:
        MixbitError: times that no table describes.
    """
    rows = np.array([_features(policy, kernels, neighbours) for policy, _ in measured])
    times = np.array([us for _, us in measured])
    # Relative errors count: each row is divided by its time.
    scale, boundary, quantized, dequantized, offset = _least_squares(rows / times[:, None], np.ones(len(times)))
    if scale <= 0:
        hint = "Is the device busy? Run again"
        raise MixbitError("latency_table", "measured times do not rise with the layers' own", hint=hint)
    table = Table(
        {n: {kind: round(scale * us, DECIMALS) for kind, us in row.items()} for n, row in kernels.items()},
        {
            pair: (round(boundary + quantized * count, DECIMALS), round(boundary + dequantized * count, DECIMALS))
            for pair, count in neighbours.items()
        },
        round(offset, DECIMALS),
        dict(reference_us),
        0.0,
    )
    judged = judge(table, held_out)
    table = Table(table.layers, table.boundaries, table.offset_us, table.reference_us, judged["error"])
    fitted = {"scale": scale, "offset_us": offset, "boundary_us": boundary}
    return table, {**fitted, "quantized_us": quantized, "dequantized_us": dequantized, **judged}


def judge(table: Table, measured: Sequence[tuple[Policy, float]]) -> dict[str, float]:
    """Mean, 90th percentile and largest of the relative error, and Spearman's rank correlation, of predictions."""
    times = np.array([us for _, us in measured])
    found = np.array([table.predict_us(policy) for policy, _ in measured])
    errors = np.abs(found / times - 1)
    ranks = [np.argsort(np.argsort(values)) for values in (found, times)]
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(times) > 1 else 1.0
    spread = {"error_p90": float(np.quantile(errors, 0.9)), "largest_error": float(errors.max())}
    return {"error": float(errors.mean()), **spread, "rank_correlation": correlation}


def _features(policy: Policy, kernels: Mapping[str, Mapping[str, float]], neighbours: Neighbours) -> tuple[float, ...]:
    """Time of kernels; changes of precision; elements that are quantized at them, and dequantized; 1 for the offset."""
    changes = {(a, b): count for (a, b), count in neighbours.items() if change(policy, a, b)}
    quantized = sum(count for (a, _), count in changes.items() if is_float(policy[a]))
    layers = sum(kernels[name][executed(entry)] for name, entry in policy.items())
    return layers, float(len(changes)), float(quantized), float(sum(changes.values()) - quantized), 1.0


def _least_squares(rows: Array, wanted: Array) -> tuple[float, ...]:
    """The best fit in which only the offset, the last one, may be negative: each choice of the others is tried."""
    free = rows.shape[1] - 1
    best, least = np.zeros(rows.shape[1]), np.inf
    for chosen in _subsets(range(free)):
        columns = [*chosen, free]
        fitted, *_ = np.linalg.lstsq(rows[:, columns], wanted, rcond=None)
        full = np.zeros(rows.shape[1])
        full[columns] = fitted
        error = float(((rows @ full - wanted) ** 2).sum())
        if (full[:free] >= 0).all() and error < least:
            best, least = full, error
    return tuple(map(float, best))


def _subsets(of: Iterable[int]) -> Iterable[tuple[int, ...]]:
    items = list(of)
    return itertools.chain.from_iterable(itertools.combinations(items, size) for size in range(1, len(items) + 1))

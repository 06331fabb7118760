"""Class-stratified shares and a shuffle that is the same everywhere."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def share(fraction: float, count: int) -> int:
    """`fraction` of `count`, rounded half up, at least 1; 0.5 of 5 is 3. Decimal: 0.35 of 10 is 4, as written."""
    exact = Decimal(repr(float(fraction))) * count
    return max(1, int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)))


def quotas(counts: Integers, total: int) -> Integers:
    """Whole shares of `total` proportional to `counts`, by largest remainder; ties go to the earlier class.

    Each quota is within 1 of its proportion, and they add up to `total` (<= counts.sum()).
    """
    everything = int(counts.sum())
    floors = counts * total // everything
    remainders = counts * total % everything
    order = np.argsort(-remainders, kind="stable")
    quota = floors.copy()
    quota[order[: total - int(floors.sum())]] += 1
    return quota


def shuffled(count: int, seed: int) -> Integers:
    """0..count-1 in an order that depends on the seed alone: raw PCG64 words, whose stream NumPy promises to keep."""
    words = np.random.PCG64(seed).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def taken_per_class(y: Integers, order: Integers, classes: Integers, quota: Integers) -> Integers:
    """The first `quota[i]` indices of class `classes[i]` in `order`, sorted."""
    kept = [order[y[order] == label][:wanted] for label, wanted in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(kept))

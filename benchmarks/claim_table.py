"""The claim's statistics: means over seeds, and paired differences with two kinds of 95 % intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# 97.5 % points of Student's t by degrees of freedom; beyond, the normal's.
T975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
NORMAL975 = 1.96
FIGURES = ("correct", "losses")

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A paired difference of means.

    Attributes:
        mean: first minus second.
        over_seeds: half width of the 95 % interval with seeds as the sample (Student's t); what another seed may do.
        over_pictures: half width with test pictures as the sample, averaged over seeds; what other pictures may do.
    """

    mean: float
    over_seeds: float
    over_pictures: float


def mean_and_error(trials: Sequence[Trial], figure: str) -> tuple[float, float]:
    """(mean over seeds and pictures, standard error over pictures: of an accuracy the binomial one)."""
    return _mean_and_error(_per_picture([trial[figure] for trial in trials]))


def difference(first: Sequence[Trial], second: Sequence[Trial], figure: str) -> Difference:
    """First minus second, seed by seed and picture by picture.

    Args:
        first: trials of one policy.
        second: trials of the other with the same seeds.
        figure: `correct` or `losses`, a value per test picture.
    """
    others = {trial["seed"]: trial[figure] for trial in second}
    gaps = [[a - b for a, b in zip(t[figure], others[t["seed"]], strict=True)] for t in first if t["seed"] in others]
    means = [statistics.fmean(gap) for gap in gaps]
    mean, error = _mean_and_error(_per_picture(gaps))
    return Difference(mean, _half_width(means), NORMAL975 * error)


def _per_picture(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread / math.sqrt(len(values))


def _half_width(means: Sequence[float]) -> float:
    if len(means) < 2:
        return math.inf
    return T975.get(len(means) - 1, NORMAL975) * statistics.stdev(means) / math.sqrt(len(means))


def table(trials: Sequence[Trial], first: str) -> str:
    """Each policy, then what `first` gains over each other one."""
    names = list(dict.fromkeys(trial["policy"] for trial in trials))
    by_name = {name: [trial for trial in trials if trial["policy"] == name] for name in names}
    rows = ["| policy | seeds | BitOps | bits w / a | test accuracy % | test loss |", "|---|---|---|---|---|---|"]
    for name, mine in by_name.items():
        bits, bitops = ([trial[key] for trial in mine] for key in ("mean_bits", "bitops"))
        mean_bits = " / ".join(f"{statistics.fmean(kind):.2f}" for kind in zip(*bits, strict=True))
        accuracy, loss = (mean_and_error(mine, figure) for figure in FIGURES)
        words = f"{100 * accuracy[0]:.2f} ± {100 * accuracy[1]:.2f} | {loss[0]:.4f} ± {loss[1]:.4f}"
        rows.append(f"| {name} | {len(mine)} | {statistics.fmean(bitops) / 1e6:.2f} M | {mean_bits} | {words} |")
    rows += [
        "",
        f"| {first} minus | accuracy, points | over seeds | over pictures | loss | over seeds | over pictures |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        if name != first:
            accuracy_gap, loss_gap = (difference(by_name[first], by_name[name], figure) for figure in FIGURES)
            rows.append(f"| {name} | {_words(accuracy_gap, 100, 2)} | {_words(loss_gap, 1, 4)} |")
    return "\n".join(rows)


def _words(gap: Difference, factor: int, digits: int) -> str:
    mean = f"{gap.mean * factor:+.{digits}f}"
    return " | ".join([mean, *(f"± {width * factor:.{digits}f}" for width in (gap.over_seeds, gap.over_pictures))])

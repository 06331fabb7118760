"""Gates of a sweep: how far a night's best may fall behind the last good night's before the night counts as broken."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from mixbit.config import Settings

# Figures are means of float32: a fall of exactly what is allowed is no more than that.
ROUNDING = 1e-6


class Gates(Settings):
    """What must hold of the best policy of each budget; a gate that is not named always holds.

    The first night has nothing to be compared with: of it only `simulated_deployed` is asked.

    Attributes:
        metric_drop: the most that the metric on val may fall: points of accuracy, or the metric's own unit.
        latency: the most that latency relative to float may grow on any device, as a factor such as 1.1.
        file_bytes: the most that the file may grow, as a factor.
        simulated_deployed: the most that the deployed file's metric on test may differ from the simulated one: points
            of accuracy, or the metric's own unit.
    """

    metric_drop: float | None = Field(default=None, ge=0)
    latency: float | None = Field(default=None, ge=1)
    file_bytes: float | None = Field(default=None, ge=1)
    simulated_deployed: float | None = Field(default=None, ge=0)


class Promotion(Settings):
    """When a night's best becomes the champion: all gates hold, and it is better on val by more than `margin`."""

    margin: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Figures:
    """What gates look at. Latencies by device, relative to float in the same job; metrics in the gates' unit.

    `maximize` says which way the metric is better.
    """

    val: float
    maximize: bool
    simulated: float | None
    deployed: float | None
    file_bytes: float | None
    latency: Mapping[str, float]


def broken(gates: Gates, now: Figures, before: Figures | None) -> Iterator[tuple[str, str]]:
    """(gate, what is wrong) of every gate that does not hold.

    Args:
        gates: what is asked.
        now: this night's.
        before: the last good night's; None where there was none.
    """
    if gates.simulated_deployed is not None and now.simulated is not None and now.deployed is not None:
        gap = abs(now.simulated - now.deployed)
        if gap > gates.simulated_deployed + ROUNDING:
            yield "simulated_deployed", f"differs by {gap:.4g}, allowed {gates.simulated_deployed:g}"
    if before is None:
        return
    fell = (before.val - now.val) * (1 if now.maximize else -1)
    if gates.metric_drop is not None and fell > gates.metric_drop + ROUNDING:
        yield (
            "metric_drop",
            f"val fell by {fell:.4g}, from {before.val:.4g} to {now.val:.4g}, allowed {gates.metric_drop:g}",
        )
    if gates.file_bytes is not None and now.file_bytes and before.file_bytes:
        yield from _grown("file_bytes", "the file", now.file_bytes / before.file_bytes, gates.file_bytes)
    for device, ratio in now.latency.items() if gates.latency is not None else ():
        if device in before.latency and gates.latency is not None:
            yield from _grown("latency", f"latency on {device}", ratio / before.latency[device], gates.latency)


def _grown(gate: str, what: str, factor: float, allowed: float) -> Iterator[tuple[str, str]]:
    if factor > allowed + ROUNDING:
        yield gate, f"{what} is {factor:.3f}x the last good night's, allowed {allowed:g}x"


def is_better(now: Figures, champion_val: float, margin: float) -> bool:
    """Whether a candidate beats the champion on val by more than the margin."""
    return (now.val - champion_val) * (1 if now.maximize else -1) > margin + ROUNDING

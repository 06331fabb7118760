"""Figures of the report in words: percent, standard errors, letters for thousands."""

from collections.abc import Mapping

from tasks.report_content import Measured, ReportContent, Shown
from tasks.report_points import short_amount

NOTHING = "-"


def percent(content: ReportContent) -> float:
    """The factor by which the metric is shown."""
    return 100.0 if content.metric == "accuracy" else 1.0


def metric_title(content: ReportContent) -> str:
    """What the metric's axis is called."""
    return f"{content.metric}, %" if content.metric == "accuracy" else content.metric


def number_words(measured: Measured | None, scale: float = 1.0, decimals: int = 4) -> str:
    """`0.0712 ± 0.0093`; a dash for nothing."""
    if measured is None:
        return NOTHING
    error = "" if measured.standard_error is None else f" ± {measured.standard_error * scale:.{decimals}f}"
    return f"{measured.value * scale:.{decimals}f}{error}"


def metric_words(content: ReportContent, shown: Shown, side: str) -> str:
    """The test metric of one side, `simulated` or `deployed`."""
    return number_words(
        shown.measured(f"test_metric_{side}"), percent(content), 2 if content.metric == "accuracy" else 4
    )


def amount_words(value: float | None) -> str:
    """`1.2 G`; a dash for nothing."""
    return NOTHING if value is None else short_amount(value)


def bits_words(shown: Shown) -> str:
    """Mean weight and activation bits."""
    pair = (shown.figures.get("mean_weight_bits"), shown.figures.get("mean_activation_bits"))
    return " / ".join(NOTHING if bits is None else "float" if bits >= 32 else f"{bits:.2f}" for bits in pair)


def latency_words(figures: Mapping[str, float]) -> str:
    """`258 µs (0.62x float)`."""
    words = f"{short_amount(figures['latency_us'])} µs" if "latency_us" in figures else NOTHING
    ratio = figures.get("ratio_to_float")
    return words if ratio is None else f"{words} ({ratio:.2f}x float)"


def share_words(value: float | None, digits: int) -> str:
    """`99.86%`; a dash for nothing."""
    return NOTHING if value is None else f"{value:.{digits}%}"


def exact_words(value: float) -> str:
    """`12,345`; a fraction with one decimal."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"

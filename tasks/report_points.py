"""Policies as points: what they do against what they cost."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.report_canvas import COLOURS, GREY, blank_figure, svg
from tasks.report_content import ReportContent, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Place:
    """Where a point lies along one axis, and how far its bar reaches."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """What a point's place along one axis is."""

    title: str
    place: Callable[[Shown], Place | None]
    log: bool = False


def figure_of(name: str, title: str, *, log: bool = False, scale: float = 1.0) -> Axis:
    """An axis that shows a figure of the stages, with its standard error."""

    def place(shown: Shown) -> Place | None:
        found = shown.measured(name)
        if found is None:
            return None
        value, error = found.value * scale, (found.standard_error or 0.0) * scale
        return Place(value, value - error, value + error)

    return Axis(title, place, log)


def latency_of(content: ReportContent, device: str) -> Axis:
    """Latency on one device relative to float, from the 10th to the 90th percentile of rounds.

    The references are measured beside every policy, in its own run: float is 1, W8A8 the median over those runs.
    """
    runs = [shown.profiles[device].figures for shown in content.shown if device in shown.profiles]
    w8a8 = [
        run["ratio_to_float"] / run["ratio_to_w8a8"] for run in runs if {"ratio_to_float", "ratio_to_w8a8"} <= set(run)
    ]

    def place(shown: Shown) -> Place | None:
        if device in shown.profiles and "ratio_to_float" in shown.profiles[device].figures:
            figures = shown.profiles[device].figures
            value = figures["ratio_to_float"]
            return Place(value, figures.get("ratio_to_float_p10", value), figures.get("ratio_to_float_p90", value))
        if shown.kind != "reference" or not runs:
            return None
        known = {"float": 1.0, **({"w8a8": statistics.median(w8a8)} if w8a8 else {})}
        return Place(*[known[shown.name]] * 3) if shown.name in known else None

    return Axis(f"latency on {device}, relative to float", place)


def colours(content: ReportContent) -> dict[str, str]:
    """Budget -> colour; a baseline has its budget's, a reference is grey."""
    budgets = [shown.name for shown in content.of_kind("budget")]
    found = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(budgets)}
    return {shown.name: found.get(shown.beside or shown.name, GREY) for shown in content.shown}


def scatter(content: ReportContent, x: Axis, y: Axis, *, link: bool = False) -> str | None:
    """Policies as points: filled for budgets, hollow for baselines, squares for references; None without points.

    With `link`, a dotted line joins each baseline to the policy it stands beside.
    """
    with blank_figure(3.7, 2.8) as figure:
        axes = figure.add_subplot()
        drawn = draw_scatter(axes, content, x, y, link=link)
        return svg(figure, f"{y.title} against {x.title}") if drawn else None


def draw_scatter(
    axes: "Axes", content: ReportContent, x: Axis, y: Axis, *, link: bool = False, named: bool = False
) -> bool:
    """Draw on given axes; False when nothing has both figures."""
    painted = colours(content)
    placed: dict[str, tuple[float, float]] = {}
    for shown in content.shown:
        across, up = x.place(shown), y.place(shown)
        if across is not None and up is not None:
            placed[shown.name] = (across.value, up.value)
            _point(axes, shown, across, up, painted[shown.name], named=named)
    if link:
        for shown in content.of_kind("baseline"):
            if shown.name in placed and shown.beside in placed:
                pair = zip(placed[shown.name], placed[shown.beside], strict=True)
                axes.plot(*pair, color=painted[shown.name], linestyle=":", linewidth=1, zorder=1)
                axes.annotate(shown.own_name, placed[shown.name], fontsize=6, color=painted[shown.name])
    if x.log and placed:
        axes.set_xscale("log")
        _plain_log_ticks(axes, [across for across, _ in placed.values()])
    axes.set_xlabel(x.title)
    axes.set_ylabel(y.title)
    axes.margins(0.14, 0.18)
    axes.locator_params(axis="y", nbins=6)
    if not x.log:
        axes.locator_params(axis="x", nbins=6)
    return bool(placed)


def _point(axes: "Axes", shown: Shown, x: Place, y: Place, colour: str, *, named: bool) -> None:
    bars: dict[str, Any] = {
        f"{name}err": [[place.value - place.low], [place.high - place.value]]
        for name, place in (("x", x), ("y", y))
        if place.high > place.low
    }
    bars |= {"capsize": 3, "elinewidth": 1, "markeredgewidth": 1.6, "markersize": 7, "zorder": 3}
    face = "white" if shown.kind == "baseline" else colour
    axes.errorbar([x.value], [y.value], fmt=marker(shown), color=colour, markerfacecolor=face, **bars)
    if named and shown.kind != "baseline":
        place = {"xytext": (7, 6), "textcoords": "offset points"}
        axes.annotate(shown.name, (x.value, y.value), **place, fontsize=8, color=colour, fontweight="bold")  # type: ignore[arg-type]


def marker(shown: Shown) -> str:
    """Circles; a square for float and a diamond for any other reference, which share a colour."""
    return "o" if shown.kind != "reference" else "s" if shown.name == "float" else "D"


def _plain_log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """A few round numbers with a letter, instead of powers of ten that only specialists read."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values) / 1.5, max(values) * 1.5
    steps = (1, 2, 5) if high / low < 300 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(inside[:: max(1, math.ceil(len(inside) / 5))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_amount(value)))


def short_amount(value: float) -> str:
    """`312 k`, `1.2 G`."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"

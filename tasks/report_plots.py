"""The report's other pictures: bits per layer, latency, simulated against deployed; and the picture of a result."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.report_canvas import ACTIVATION, GREY, INK, WEIGHT, blank_figure, svg
from tasks.report_content import Measured, ReportContent, Shown
from tasks.report_points import draw_scatter, figure_of, latency_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bits_per_layer(content: ReportContent) -> str | None:
    """One strip per policy: two bars per layer, weight and activation bits, in order of execution."""
    chosen = content.of_kind("budget")
    if not chosen:
        return None
    with blank_figure(9.0, 0.75 + 1.15 * len(chosen)) as figure:
        strips = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
        names = [layer["name"] for layer in content.layers["layers"]]
        for axes, shown in zip(strips, chosen, strict=True):
            draw_bits(axes, names, shown)
        _layer_ticks(strips[-1], names)
        strips[0].legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
        return svg(figure, "bits per layer")


def draw_bits(axes: "Axes", names: Sequence[str], shown: Shown) -> None:
    """Weight and activation bits of one policy as bars; a float entry is a hatched bar of full height."""
    for kind, shift, colour in (("weight", -0.21, WEIGHT), ("activation", 0.21, ACTIVATION)):
        bits = [shown.policy.get(name, {}).get(f"{kind}_bits", 0) for name in names]
        places = [place + shift for place in range(len(names))]
        heights = [9 if value == "float" else value for value in bits]
        bars = axes.bar(places, heights, width=0.38, color=colour, label=f"{kind} bits")
        for bar, value in zip(bars, bits, strict=True):
            if value == "float":
                bar.set(facecolor="white", edgecolor=colour, hatch="////")
            if len(names) <= 24:
                text = "f" if value == "float" else str(value)
                axes.text(
                    bar.get_x() + 0.19, bar.get_height() + 0.15, text, ha="center", va="bottom", fontsize=7, color=INK
                )
    axes.set(ylim=(0, 10.2), yticks=[2, 4, 6, 8], xlim=(-0.6, len(names) - 0.4))
    axes.grid(visible=False, axis="x")
    axes.set_title(shown.name)


def _layer_ticks(axes: "Axes", names: Sequence[str]) -> None:
    size = 8 if len(names) <= 24 else 6 if len(names) <= 60 else 4
    axes.set_xticks(range(len(names)), names, rotation=35 if len(names) <= 24 else 90, ha="right", fontsize=size)


def latency_against_bitops(content: ReportContent, device: str) -> str | None:
    """Measured latency against BitOps, the budget, both relative to float; the dashed line is proportion."""
    base = next((shown.figures.get("bitops") for shown in content.shown if shown.name == "float"), None)
    y = latency_of(content, device)
    if not base or not any(y.place(shown) for shown in content.of_kind("budget")):
        return None
    x = figure_of("bitops", "BitOps, relative to float", log=True, scale=1 / base)
    with blank_figure(3.7, 2.8) as figure:
        axes = figure.add_subplot()
        draw_scatter(axes, content, x, y)
        low = axes.get_xlim()[0]
        steps = [low ** (1 - step / 50) for step in range(51)]
        axes.plot(steps, steps, color=GREY, linestyle="--", linewidth=1, zorder=1)
        axes.set_ylim(0, max(1.15, axes.get_ylim()[1]))
        return svg(figure, f"latency on {device} against BitOps")


def simulated_against_deployed(content: ReportContent, figure_name: str, title: str, scale: float) -> str | None:
    """Each policy's two judgements on test beside each other, with standard errors."""
    shown = [
        each
        for each in content.shown
        if each.measured(f"{figure_name}_simulated") and each.measured(f"{figure_name}_deployed")
    ]
    if not shown:
        return None
    with blank_figure(3.7, 0.9 + 0.36 * len(shown)) as figure:
        axes = figure.add_subplot()
        for side, shift, face in (("simulated", 0.14, "white"), ("deployed", -0.14, WEIGHT)):
            found = [each.measured(f"{figure_name}_{side}") or Measured(0.0) for each in shown]
            values, errors = [m.value * scale for m in found], [(m.standard_error or 0.0) * scale for m in found]
            places = [len(shown) - index + shift for index in range(len(shown))]
            axes.errorbar(
                values,
                places,
                xerr=errors,
                fmt="o",
                color=WEIGHT,
                markerfacecolor=face,
                capsize=2,
                markersize=6,
                label=side,
            )
        axes.set_yticks([len(shown) - index for index in range(len(shown))], [each.name for each in shown])
        axes.set(xlabel=title, ylim=(0.4, len(shown) + 0.6))
        axes.locator_params(axis="x", nbins=6)
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
        return svg(figure, f"{title}: simulated and deployed")


def hero(content: ReportContent) -> bytes:
    """The picture of a result for a page's head, as PNG: loss against BitOps, and one policy's bits per layer."""
    y = figure_of("test_loss_deployed", "test loss of the deployed file")
    with blank_figure(10.0, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        draw_scatter(left, content, figure_of("bitops", "BitOps", log=True), y, named=True)
        left.set_title(f"{content.experiment}: what bits cost")
        budgets = content.of_kind("budget")
        names = [layer["name"] for layer in content.layers["layers"]]
        if budgets:
            shown = budgets[len(budgets) // 2]
            draw_bits(right, names, shown)
            _layer_ticks(right, names)
            right.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
            right.set_ylim(0, 11.5)
            right.set_title(f"policy {shown.name}: bits per layer")
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        stream = io.BytesIO()
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return stream.getvalue()

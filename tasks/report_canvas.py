"""What every picture of the report shares: colours, style, and SVG text with the same bytes for the same content."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by everyone; https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
GREY, INK = "#6b7280", "#1f2937"
WEIGHT, ACTIVATION = "#0072B2", "#E69F00"
STYLE: dict[Any, Any] = {
    **{f"axes.spines.{side}": False for side in ("top", "right")},
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "font.size": 9,
    "svg.hashsalt": "mixbit",
    "svg.fonttype": "path",
    "legend.frameon": False,
    "text.parse_math": False,
}


@contextmanager
def blank_figure(width: float, height: float) -> "Iterator[Figure]":
    """A figure in the report's style, whatever style the user has set."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Whatever style the user set for other plots, this one looks the same.
    style: Any = {**mpl.rcParamsDefault, **STYLE, "backend": mpl.rcParams["backend"]}
    with mpl.rc_context(style):
        yield Figure(figsize=(width, height), dpi=160, layout="constrained")


def svg(figure: "Figure", label: str) -> str:
    """Inline SVG that takes the width it is given."""
    from html import escape

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)  # type: ignore[no-untyped-call]
    _, _, body = stream.getvalue().partition("<svg ")
    head, _, rest = body.partition(">")
    box = head.partition('viewBox="')[2].partition('"')[0]
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="{box}" xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'

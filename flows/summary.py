"""The table of policies a run ends with: what each one is, how well it does, what it costs, where it lies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flows.numbers import amount
from tasks.report_content import Measured

NOTHING = "-"
NAME_WIDTH = 15
SLOWER_NAMED = 4


@dataclass(frozen=True)
class Latency:
    """One file on one device. `executed` counts layers by the bits their kernels computed with: `int8 9, float 1`.

    `slower_in_int8` names the layers whose float kernels are quicker: `features.3.conv (depthwise, 1.3x)`.
    """

    device: str
    latency_us: float
    ratio_to_float: float | None
    ratio_to_w8a8: float | None
    executed: str
    slower_in_int8: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyRow:
    """One policy: a budget's, a reference's (`float`, `w8a8`), or, with `beside`, a baseline of a budget.

    `val` is the network with fake quantizers on the validation split, the one figure that baselines have too;
    `simulated` is the same network, `deployed` the exported file itself, both on the test split.
    """

    name: str
    weight_bits: float
    activation_bits: float
    bitops: int
    file_bytes: int | None = None
    metric_val: float | None = None
    loss_val: float | None = None
    metric_simulated: Measured | None = None
    metric_deployed: Measured | None = None
    loss_simulated: Measured | None = None
    loss_deployed: Measured | None = None
    latencies: tuple[Latency, ...] = ()
    registered: str = ""
    link: str = ""
    beside: str = ""


def summary_tables(rows: Sequence[PolicyRow], metric: str, *, sign: str = "±") -> Iterator[RenderableType]:
    """Tables of at most 80 columns, then where each result lies.

    Args:
        rows: references first, then each budget with its baseline beneath it.
        metric: what the metric is called; an accuracy is shown in percent.
        sign: plus or minus.
    """
    yield from (Text(), _policies(rows, metric, sign), Text(), _losses(rows, sign))
    if any(row.latencies for row in rows):
        yield from (Text(), _latencies(rows))
        yield from _slower(rows)
    yield Text()
    for row in rows:
        words = [part for part in (f"{row.name}:", row.registered, row.link) if part]
        if len(words) > 1:
            line = "  ".join(words)
            yield Text(line if len(line) <= 80 else f"{'  '.join(words[:-1])}\n  {words[-1]}")


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="underline",
    )
    table.add_column("policy", no_wrap=True, max_width=NAME_WIDTH, overflow="ellipsis")
    for column in columns:
        left = column in {"device", "executed"}
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "executed", overflow="fold")
    return table


def _policies(rows: Sequence[PolicyRow], metric: str, sign: str) -> Table:
    percent = metric == "accuracy"
    title = f"Policies: {metric}{' in %' if percent else ''}, test {sign} standard error"
    table = _table(title, "bits w/a", "BitOps", "bytes", "val", "simulated", "deployed")
    for row in rows:
        size = NOTHING if row.file_bytes is None else amount(row.file_bytes, 3)
        val = None if row.metric_val is None else Measured(row.metric_val)
        metrics = [
            _measured(each, sign, 100 if percent else 1, 2 if percent else 3)
            for each in (val, row.metric_simulated, row.metric_deployed)
        ]
        table.add_row(_name(row), _bits(row), amount(row.bitops, 3), size, *metrics, style="dim" if row.beside else "")
    return table


def _losses(rows: Sequence[PolicyRow], sign: str) -> Table:
    table = _table(f"Loss, test {sign} standard error", "val", "simulated", "deployed")
    for row in rows:
        val = None if row.loss_val is None else Measured(row.loss_val)
        losses = [_measured(each, sign, 1, 4) for each in (val, row.loss_simulated, row.loss_deployed)]
        table.add_row(_name(row), *losses, style="dim" if row.beside else "")
    return table


def _latencies(rows: Sequence[PolicyRow]) -> Table:
    table = _table(
        "Latency (under 1x is faster): what was asked (bits w/a), what the kernels executed",
        "device",
        "latency",
        "/float",
        "/W8A8",
        "bits w/a",
        "executed",
    )
    for row in rows:
        for latency in row.latencies:
            ratios = [_ratio(ratio) for ratio in (latency.ratio_to_float, latency.ratio_to_w8a8)]
            table.add_row(
                _name(row), latency.device, f"{amount(latency.latency_us)} us", *ratios, _bits(row), latency.executed
            )
    return table


def _slower(rows: Sequence[PolicyRow]) -> Iterator[Text]:
    for row in rows:
        for latency in row.latencies:
            named, rest = latency.slower_in_int8[:SLOWER_NAMED], len(latency.slower_in_int8[SLOWER_NAMED:])
            if named:
                more = f" and {rest} more" if rest else ""
                yield Text(f"{row.name}: slower in int8 than in float on {latency.device}: {', '.join(named)}{more}")


def _name(row: PolicyRow) -> str:
    """A baseline stands beneath its budget, whose name it drops where there is no room."""
    if not row.beside:
        return row.name
    full = f"  {row.name}"
    return full if len(full) <= NAME_WIDTH else f"  {row.name.removeprefix(f'{row.beside}-')}"


def _bits(row: PolicyRow) -> str:
    words = [f"{bits:.1f}" if bits < 32 else "float" for bits in (row.weight_bits, row.activation_bits)]
    return "float" if words == ["float", "float"] else "/".join(words)


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}x"


def _measured(measured: Measured | None, sign: str, factor: int, decimals: int) -> str:
    if measured is None:
        return NOTHING
    text = f"{measured.value * factor:.{decimals}f}"
    error = measured.standard_error
    return text if error is None else f"{text} {sign} {error * factor:.{decimals}f}"

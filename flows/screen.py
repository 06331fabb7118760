"""What a run shows while it runs: a live table on a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from flows.numbers import duration, figures_text, seconds_text
from flows.summary import PolicyRow, summary_tables

State = Literal["waiting", "running", "cached", "done", "failed"]
STYLES = {"waiting": "dim", "running": "bold cyan", "cached": "blue", "done": "green", "failed": "bold red"}
SIGNS = {"waiting": "·", "running": "▸", "cached": "=", "done": "✓", "failed": "✗"}
# Where there is no terminal, a long stage still says every so often that it is alive.
SIGN_OF_LIFE_S = 30.0
BAR_WIDTH = 12
CELL_WIDTH = 25
MAX_WIDTH = 120
TABLE_WIDTH = 80
ASCII = str.maketrans({"→": "->", "…": "...", "≤": "<=", "≥": ">="})


@dataclass(frozen=True)
class Row:
    """One cell of the picture, as it stands."""

    cell: str
    state: State = "waiting"
    reason: str = ""
    began_s: float = 0.0
    seconds: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    # (done, total) now and at the first call, and when that was: a resumed stage does not start at 0.
    progress: tuple[int, int] | None = None
    first: tuple[int, float] | None = None
    note: str = ""

    def took_s(self, now_s: float) -> float | None:
        """Seconds so far, or in the end."""
        return now_s - self.began_s if self.state == "running" else self.seconds

    def left_s(self, now_s: float) -> float | None:
        """Seconds to go at the rate seen so far; None before there is a rate."""
        if self.progress is None or self.first is None:
            return None
        gained, took_s = self.progress[0] - self.first[0], now_s - self.first[1]
        return (self.progress[1] - self.progress[0]) * took_s / gained if gained > 0 and took_s > 0 else None


class Screen:
    """Shows cells as their state changes; safe to call from several threads.

    Args:
        title: first line, such as the experiment's file.
        console: where to write; standard output if not given.
        clock: seconds that only grow.
    """

    def __init__(
        self, title: str = "", console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(highlight=False)
        self._title, self._clock = title, clock
        self._rows: dict[str, Row] = {}
        self._said_s: dict[str, float] = {}
        self._lock = threading.RLock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._shown,
                refresh_per_second=4,
                vertical_overflow="crop",
                transient=True,
            )
            self._live.start()
        elif self._title:
            self.say(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is None:
            return
        self._live.stop()
        self._live = None
        self._console.print(self._table(list(self._rows.values())), soft_wrap=True)

    def waiting(self, cell: str) -> None:
        """The cell will be looked at later."""
        with self._lock:
            self._rows[cell] = Row(cell)

    def running(self, cell: str, reason: str) -> None:
        """The cell is being computed, for a reason."""
        row = self._row(cell)
        began_s = row.began_s if row.state == "running" else self._clock()
        self._change(Row(cell, "running", reason, began_s=began_s))

    def progress(self, cell: str, done: int, total: int, note: str = "") -> None:
        """The cell got on: `done` of `total` steps."""
        with self._lock:
            now_s = self._clock()
            row = self._rows.get(cell) or Row(cell, "running", began_s=now_s)
            row = replace(row, progress=(done, max(total, 1)), first=row.first or (done, now_s), note=note)
            self._rows[cell] = row
            if self._live is None and now_s - self._said_s.get(cell, row.began_s) >= SIGN_OF_LIFE_S:
                self._said_s[cell] = now_s
                self.say(f"{cell}: {_progress_words(row, now_s)}")

    def cached(self, cell: str) -> None:
        """The cell has its outputs already."""
        self._change(Row(cell, "cached"))

    def done(self, cell: str, seconds: float, figures: Mapping[str, float]) -> None:
        """The cell was computed."""
        self._change(replace(self._row(cell), state="done", seconds=seconds, figures=dict(figures)))

    def failed(self, cell: str, message: str) -> None:
        """The cell stopped; of the message its first line is shown."""
        row, lines = self._row(cell), message.splitlines() or [""]
        reason = lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
        self._change(replace(row, state="failed", reason=reason, seconds=row.took_s(self._clock())))

    def summary(self, rows: Sequence[PolicyRow], metric: str = "accuracy") -> None:
        """The table of policies that a run ends with."""
        for part in summary_tables(rows, metric, sign="±" if self._console.is_terminal else "+-"):
            self._print(part)

    def say(self, text: str) -> None:
        """One line for the reader, above the table while it is live."""
        with self._lock:
            if self._console.is_terminal:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)
                return
            plain = text.translate(ASCII).encode("ascii", "replace").decode()
            self._console.print(plain, markup=False, highlight=False, soft_wrap=True)

    def _row(self, cell: str) -> Row:
        return self._rows.get(cell) or Row(cell, began_s=self._clock())

    def _change(self, row: Row) -> None:
        with self._lock:
            self._rows[row.cell] = row
            if self._live is None:
                self.say(_line(row))

    def _print(self, part: RenderableType) -> None:
        if self._console.is_terminal:
            wide = max(self._console.width, TABLE_WIDTH)  # a narrow terminal wraps lines, but no figure is cut
            self._console.print(part, soft_wrap=isinstance(part, Text), width=wide, crop=False)
            return
        with self._console.capture() as capture:
            self._console.print(part, soft_wrap=isinstance(part, Text))
        for line in capture.get().splitlines():
            self.say(line.rstrip())

    def _shown(self) -> RenderableType:
        """What fits the terminal's height: what runs and failed, what ended last, what comes next."""
        with self._lock:
            rows = list(self._rows.values())
            shown = _most_telling(rows, self._console.height - 4)
            hidden = [row.state for row in rows if row.cell not in shown]
            table = self._table([row for row in rows if row.cell in shown])
            if hidden:
                counts = [f"{hidden.count(state)} {state}" for state in STYLES if state in hidden]
                table.append(f"\n… and {', '.join(counts)}", style="dim")
            return table

    def _table(self, rows: Sequence[Row]) -> Text:
        width = min(self._console.width, MAX_WIDTH)
        heads = [self._title, *([f"{'stage':<{CELL_WIDTH}}  {'state':<9}  {'time':>6}"] if rows else [])]
        lines = [Text(head, style="bold") for head in heads if head]
        for row in rows:
            lines += _row_lines(row, self._clock(), width)
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _row_lines(row: Row, now_s: float, width: int) -> list[Text]:
    """One line; a reason that does not fit in gets a line of its own."""
    seconds = row.took_s(now_s)
    line = Text(f"{row.cell if len(row.cell) <= CELL_WIDTH else row.cell[: CELL_WIDTH - 1] + '…':<{CELL_WIDTH}}  ")
    line.append(f"{SIGNS[row.state]} {row.state:<7}", style=STYLES[row.state])
    line.append(f"  {'' if seconds is None else seconds_text(seconds):>6}  ")
    room = width - len(line)
    details = _details(row, now_s, room)
    if not row.reason:
        return [line + details]
    style = "red" if row.state == "failed" else "dim"
    if len(row.reason) + 2 + len(details) <= room:
        return [line.append(f"{row.reason}  " if details else row.reason, style=style) + details]
    reason = Text(f"  {row.reason}", style=style, no_wrap=True)
    reason.truncate(width, overflow="ellipsis")
    return [line + details, reason]


def _most_telling(rows: Sequence[Row], room: int) -> set[str]:
    """Names of the rows to show; each is reckoned with two lines as long as it has a reason."""
    urgent = [row for row in rows if row.state in {"running", "failed"}]
    ended = [row for row in rows if row.state in {"done", "cached"}][::-1]
    waiting = [row for row in rows if row.state == "waiting"]
    shown: set[str] = set()
    for row in [*urgent, *ended[:4], *waiting[:4], *ended[4:], *waiting[4:]]:
        room -= 2 if row.reason else 1
        if room < 0:
            break
        shown.add(row.cell)
    return shown


def _details(row: Row, now_s: float, width: int) -> Text:
    """The bar of what runs; the figures of what ended."""
    if row.state != "running" or row.progress is None:
        return Text(figures_text(row.figures, width))
    share = min(row.progress[0] / row.progress[1], 1.0)
    full = round(share * BAR_WIDTH)
    left_s = row.left_s(now_s)
    left = f"  {duration(left_s)} left" if left_s is not None else ""
    bar = Text("━" * full, style="cyan") + Text("─" * (BAR_WIDTH - full), style="dim")
    return bar.append(f" {share:4.0%}{left}", style="bold")


def _progress_words(row: Row, now_s: float) -> str:
    assert row.progress is not None
    left_s = row.left_s(now_s)
    words = [f"{row.progress[0]}/{row.progress[1]}", row.note, f"{duration(left_s)} left" if left_s is not None else ""]
    return ", ".join(word for word in words if word)


def _line(row: Row) -> str:
    took = f" in {seconds_text(row.seconds)}" if row.seconds is not None else ""
    figures = figures_text(row.figures, 1000)
    told = row.reason if row.state in {"running", "failed"} else figures
    return f"{row.cell}: {row.state}{took}" + (f" ({told})" if told else "")

"""What a run shows: 80 columns on a terminal, plain lines without one."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from flows.numbers import amount, duration, figures_text, seconds_text
from flows.screen import Screen
from flows.summary import Latency, PolicyRow
from tasks.report_content import Measured


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def plain(clock=None):
    out = io.StringIO()
    return Screen("x.yaml", Console(file=out, width=80, highlight=False), clock or Clock()), out


def terminal(height=24, clock=None):
    out = io.StringIO()
    console = Console(
        file=out, width=80, height=height, force_terminal=True, highlight=False, _environ={"TERM": "xterm"}
    )
    return Screen("x.yaml", console, clock or Clock()), out


def shown(screen):
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(screen._shown())
    return capture.get().splitlines()


GOOD, FAIR = Measured(0.9861, 0.0061), Measured(0.9778, 0.0078)
LOSS = Measured(0.0712, 0.0093)
PI = Latency("pi5", 1255.1, 0.62, 1.01, "int8 9, float 1")
ROWS = (
    PolicyRow("float", 32, 32, 12_345_678_901, 312_332, 0.99, 0.05, GOOD, GOOD, LOSS, LOSS),
    PolicyRow(
        "w4a4",
        4.12,
        3.98,
        118_000_000,
        43_120,
        0.98,
        0.07,
        GOOD,
        FAIR,
        LOSS,
        LOSS,
        (PI,),
        "digits-w4a4 v3",
        "http://localhost/1",
    ),
    PolicyRow("w4a4-uniform", 4, 4, 120_000_000, 43_000, 0.975, 0.08, beside="w4a4"),
)


def test_plain_lines_say_every_change_once_and_hold_no_control_codes(clock):
    screen, out = plain(clock)
    with screen:
        screen.waiting("policy")
        screen.cached("dataset")
        screen.running("indicators", "params.epochs 4 → 8")
        screen.done("indicators", 12.34, {"val_metric": 0.9861})
        screen.failed("policy", "no policy fits")
    assert out.getvalue().splitlines() == [
        "x.yaml",
        "dataset: cached",
        "indicators: running (params.epochs 4 -> 8)",
        "indicators: done in 12.3 s (val 0.9861)",
        "policy: failed (no policy fits)",
    ]


def test_layers_that_lose_from_int8_are_one_line_and_only_when_there_are_any():
    lost = replace(PI, slower_in_int8=tuple(f"b{i} (1.{i}x)" for i in range(6)))
    told = {}
    for name, latency in {"none": PI, "some": lost}.items():
        screen, out = plain()
        screen.summary([replace(ROWS[1], latencies=(latency,))])
        told[name] = [line for line in out.getvalue().splitlines() if "slower" in line]
    words = "b0 (1.0x), b1 (1.1x), b2 (1.2x), b3 (1.3x) and 2 more"
    assert told == {"none": [], "some": [f"w4a4: slower in int8 than in float on pi5: {words}"]}


def test_plain_output_is_ascii():
    screen, out = plain()
    with screen:
        screen.running("a", "input 3f… → 91…")
    screen.summary(ROWS)
    assert out.getvalue().isascii()


def test_a_long_stage_says_now_and_then_that_it_is_alive(clock):
    screen, out = plain(clock)
    with screen:
        screen.running("indicators", "first run")
        for step in range(100):
            clock.now_s += 1
            screen.progress("indicators", step, 200)
    told = [line for line in out.getvalue().splitlines() if "left" in line]
    assert told == ["indicators: 29/200, 2:51 left", "indicators: 59/200, 2:21 left", "indicators: 89/200, 1:51 left"]


def test_the_time_to_go_counts_from_where_a_resumed_stage_began(clock):
    screen, _ = terminal(clock=clock)
    screen.running("indicators", "first run")
    screen.progress("indicators", 100, 200)
    clock.now_s = 10.0
    screen.progress("indicators", 120, 200)
    assert "60%  0:40 left" in "\n".join(shown(screen))


def test_a_table_that_is_taller_than_the_terminal_keeps_what_runs():
    screen, _ = terminal(height=12)
    for number in range(30):
        screen.waiting(f"finetuned_model {number}")
    screen.running("finetuned_model 29", "first run")
    lines = shown(screen)
    assert len(lines) <= 12
    assert any("finetuned_model 29" in line for line in lines)
    assert lines[-1].startswith("… and ")


def test_nothing_is_wider_than_80_columns():
    screen, _ = terminal()
    screen.running("finetuned_model with a very long name of its own", "params.x 1 → 2; " * 20)
    screen.progress("finetuned_model with a very long name of its own", 1, 3, "note " * 30)
    screen.done("finetuned_model w4a4", 12345.6, {f"figure_number_{n}": 1e9 / 7**n for n in range(20)})
    assert max(cell_len(line) for line in shown(screen)) <= 80
    text_out = io.StringIO()
    text = Screen("", Console(file=text_out, width=80))
    text.summary(ROWS)
    assert max(len(line) for line in text_out.getvalue().splitlines()) <= 80


def test_a_run_on_a_terminal_leaves_the_whole_table_behind():
    screen, out = terminal()
    with screen:
        for number in range(40):
            screen.cached(f"stage {number}")
    left = out.getvalue().rpartition("\x1b[2K")[2]
    assert all(f"stage {number} " in left for number in range(40))


def test_markup_in_a_reason_is_only_text():
    screen, _ = terminal()
    screen.running("a", "params.x [red] → [/red]")
    assert "[red] → [/red]" in "\n".join(shown(screen))


def test_the_summary_shows_policy_bits_beside_executed_bits_and_dashes_for_what_was_not_measured():
    screen, out = plain()
    screen.summary(ROWS)
    lines = out.getvalue().splitlines()
    assert "w4a4    pi5     1255 us   0.62x  1.01x   4.1/4.0  int8 9, float 1" in lines
    assert "  w4a4-uniform   4.0/4.0   120 M    43 k  97.50              -              -" in lines
    assert "w4a4:  digits-w4a4 v3  http://localhost/1" in lines


def test_a_line_for_the_reader_is_plain_without_a_terminal():
    screen, out = plain()
    screen.say("report: [a]/x → é")
    assert out.getvalue() == "report: [a]/x -> ?\n"


def test_another_metric_is_not_shown_in_percent():
    screen, out = plain()
    screen.summary(ROWS, "mean error")
    assert "0.978 +- 0.008" in out.getvalue()
    assert "Policies: mean error, test +- standard error" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.004, "0.00 s"), (9.99, "9.99 s"), (12.34, "12.3 s"), (99.96, "1:40"), (3599.6, "1h00m"), (7384, "2h03m")],
)
def test_seconds_take_six_columns(seconds, text):
    assert seconds_text(seconds) == text
    assert len(text) <= 6


def test_numbers_are_short():
    assert [amount(value) for value in (0, 0.07123, 412.34, 9999, 12345, 1234567, 2.5e9)] == [
        "0", "0.07123", "412.3", "9999", "12.35 k", "1.235 M", "2.5 G",
    ]  # fmt: skip
    assert duration(187) == "3:07"


def test_figures_are_whole_or_left_out():
    figures = {"other": 3.0, "val_loss": 0.5, "val_metric": 0.25, "val_metric_se": 0.1, "latency_us": 412.0}
    assert figures_text(figures, 100) == "val 0.25  loss 0.5  latency 412 us  other 3"
    assert figures_text(figures, 20) == "val 0.25  loss 0.5"
    assert figures_text(figures, 3) == ""

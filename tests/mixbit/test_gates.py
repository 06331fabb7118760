"""Gates, by hand-made figures."""

from dataclasses import replace

import pytest

from mixbit.gates import Figures, Gates, broken, is_better

BEFORE = Figures(val=90.0, maximize=True, simulated=89.0, deployed=88.9, file_bytes=1000.0, latency={"local": 0.5})
ALL = Gates(metric_drop=1.0, latency=1.1, file_bytes=1.05, simulated_deployed=0.5)


def gates_broken(now, before=BEFORE, gates=ALL):
    return [gate for gate, _ in broken(gates, now, before)]


def test_a_night_like_the_last_breaks_no_gate():
    assert gates_broken(BEFORE) == []


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"val": 88.9}, "metric_drop"),
        ({"file_bytes": 1051.0}, "file_bytes"),
        ({"latency": {"local": 0.56}}, "latency"),
        ({"deployed": 88.4}, "simulated_deployed"),
    ],
)
def test_each_figure_beyond_its_bound_breaks_its_gate_alone(change, gate):
    assert gates_broken(replace(BEFORE, **change)) == [gate]


@pytest.mark.parametrize(
    "change", [{"val": 89.0}, {"file_bytes": 1050.0}, {"latency": {"local": 0.55}}, {"deployed": 88.5}, {"val": 95.0}]
)
def test_a_figure_at_its_bound_or_better_breaks_nothing(change):
    assert gates_broken(replace(BEFORE, **change)) == []


def test_a_metric_to_be_minimised_breaks_its_gate_by_rising():
    before = replace(BEFORE, val=1.0, maximize=False)
    assert gates_broken(replace(before, val=2.1), before) == ["metric_drop"]
    assert gates_broken(replace(before, val=0.1), before) == []


def test_the_first_night_is_asked_only_for_the_gap_between_simulated_and_deployed():
    assert gates_broken(replace(BEFORE, val=0.0, deployed=80.0), None) == ["simulated_deployed"]


def test_a_new_device_has_nothing_to_be_compared_with():
    assert gates_broken(replace(BEFORE, latency={"pi5": 9.0})) == []


def test_gates_that_are_not_named_always_hold():
    assert gates_broken(Figures(0.0, True, 0.0, 90.0, 1e9, {"local": 9.0}), gates=Gates()) == []


@pytest.mark.parametrize(("margin", "better"), [(0.0, True), (0.4, True), (0.5, False)])
def test_a_challenger_is_better_by_more_than_the_margin(margin, better):
    assert is_better(replace(BEFORE, val=90.5), 90.0, margin) is better


def test_an_equal_challenger_is_no_better():
    assert not is_better(BEFORE, 90.0, 0.0)

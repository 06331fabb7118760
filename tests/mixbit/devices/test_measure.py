import numpy as np
import pytest

from mixbit.devices.device import Request
from mixbit.devices.measure import Block, kept, run_rounds, summarize, with_limits

REQUEST = Request({"model": "m", "float": "f", "w8a8": "w"}, (1, 8, 8))


def _round(model, reference, w8a8=1.0, load=1.0):
    times = {"model": model, "float": reference, "w8a8": w8a8}
    return {name: Block(cpu_s * load, cpu_s) for name, cpu_s in times.items()}


def test_lower_limits_of_the_protocol_hold_whatever_is_asked():
    request = with_limits(Request({}, (1,), rounds=1, warm_calls=0, timed_calls=1))
    assert (request.rounds, request.warm_calls, request.timed_calls) == (10, 3, 10)


def test_rounds_with_a_drifting_reference_are_discarded():
    rounds = [_round(1, 2)] * 5 + [_round(1, 2.2)] + [_round(1, 2.09)]
    assert len(kept(rounds, REQUEST)) == 6


def test_ratio_is_the_median_of_ratios_within_rounds():
    found = summarize([_round(1, 2), _round(1.5, 3.0 / 1.49), _round(1.04, 2.08)], REQUEST)
    assert found["ratios"]["float"]["median"] == pytest.approx(0.5)
    assert found["ratios"]["float"]["p10"] <= 0.5 <= found["ratios"]["float"]["p90"]


def test_busy_machine_raises_the_alarm():
    assert not summarize([_round(1, 2)] * 10, REQUEST)["contention"]["alarm"]
    assert summarize([_round(1, 2, load=3.0)] * 10, REQUEST)["contention"]["alarm"]


def test_ratios_ignore_a_load_that_only_the_wall_clock_sees():
    assert summarize([_round(1, 2, load=3.0)] * 10, REQUEST)["ratios"]["float"]["median"] == 0.5


def test_a_reference_that_slows_down_over_the_run_raises_an_alarm_though_ratios_stay():
    rounds = [_round(1 + i / 100, 2 + i / 50) for i in range(12)]
    found = summarize(rounds, REQUEST)
    assert found["throttling"]["alarm"]
    assert found["ratios"]["float"]["p90"] == pytest.approx(0.5)
    assert not summarize(rounds[::-1], REQUEST)["throttling"]["alarm"]


def test_a_latency_carries_its_spread_by_both_clocks():
    found = summarize([_round(1 + i / 10, 2, load=2.0) for i in range(11)], REQUEST)["latency_us"]["model"]
    assert [found[name] for name in ("cpu_p10", "cpu", "cpu_p90")] == pytest.approx([1.1e6, 1.5e6, 1.9e6])
    assert found["wall_p90"] == pytest.approx(3.8e6)


def test_every_round_times_every_model_and_orders_differ():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b", "c")}
    request = Request({}, (1,), rounds=10)
    rounds = run_rounds(calls, dict.fromkeys(calls, 10), request, np.random.default_rng(0))
    blocks = [order[i] for i in range(0, len(order), 13)]
    assert len(rounds) == 10
    assert all(sorted(blocks[i : i + 3]) == ["a", "b", "c"] for i in range(0, 30, 3))
    assert len({tuple(blocks[i : i + 3]) for i in range(0, 30, 3)}) > 1


def test_no_round_starts_after_the_time_limit():
    request = Request({}, (1,), limit_s=0.0)
    assert run_rounds({"a": lambda: None}, {"a": 10}, request, np.random.default_rng(0)) == []

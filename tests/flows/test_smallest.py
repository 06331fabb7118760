"""A budget that says how good: the bisection alone, then as an experiment names it."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.smallest import NEAR, Range, Try, drop, range_of, walk
from mixbit.experiment import Smallest, Task
from tasks import policy

BETWEEN = Range(100, 1600)
TARGET = "small: {smallest: {metric_drop: 100.0, cost: bitops, tries: 3}}"

LOSSES = """
from torch.nn import functional
def loss(outputs, targets):
    return functional.cross_entropy(outputs, targets)
def losses(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")
"""


def on_front(drop_at, spend=lambda limit: limit):
    """Tries on a front where a limit is spent as told and the drop follows from the cost."""

    def attempt(number, limit):
        return Try(number, limit, f"policy {number}", f"model {number}", spend(limit), drop_at(spend(limit)))

    return attempt


@given(st.floats(100.0, 1600.0), st.integers(2, 12))
def test_it_ends_at_a_good_policy_near_the_smallest(threshold, tries):
    found = walk(
        Smallest(metric_drop=1.0, tries=tries), BETWEEN, on_front(lambda cost: 0.5 if cost >= threshold else 2)
    )
    assert found.end.cost >= threshold
    assert len(found.tries) <= tries
    assert found.end.cost <= max(threshold * 16 ** (0.5 ** (tries - 1)) + 1, threshold * NEAR + 1)


def test_what_a_policy_really_costs_bounds_the_next_try():
    found = walk(Smallest(metric_drop=1.0), BETWEEN, on_front(lambda cost: 0.0, lambda limit: limit // 2))
    assert all(later.limit < earlier.cost for earlier, later in zip(found.tries, found.tries[1:], strict=False))


def test_the_largest_is_tried_before_giving_up_and_the_best_is_told():
    found = walk(Smallest(metric_drop=1.0, tries=3), BETWEEN, on_front(lambda cost: 5000 / cost))
    assert found.end is None
    assert found.tries[-1].limit == 1600
    words = "even the largest policy, size_bits 1600, loses 3.12 on val, expected at most 1, got 3.12 at best"
    assert words in str(found.fault("small"))


def test_one_try_is_the_largest():
    assert [one.limit for one in walk(Smallest(metric_drop=1.0, tries=1), BETWEEN, on_front(lambda cost: 0)).tries] == [
        1600
    ]


def test_a_try_that_no_run_has_judged_ends_the_walk_and_stands_for_the_end():
    found = walk(Smallest(metric_drop=1.0), BETWEEN, lambda number, limit: Try(number, limit, "policy", "model"))
    assert len(found.tries) == 1
    assert found.end is found.tries[0]


def test_a_drop_is_in_points_of_accuracy_or_in_the_metrics_own_unit_and_direction():
    error = Task(loss="mine:loss", metric="mine:error", direction="minimize")
    assert drop({"val_metric": 0.95}, {"val_metric": 0.93}, "classification") == pytest.approx(2.0)
    assert drop({"val_metric": 3.0}, {"val_metric": 3.5}, error) == pytest.approx(0.5)


def test_the_range_goes_from_the_cheapest_to_the_dearest_policy():
    layers = {
        "layers": [
            {"name": name, "macs": 10, "weights": 100, "out_channels": 1, "never_run": False}
            for name in ("a", "b", "c")
        ],
        "shared_activations": [],
        "first": "a",
        "last": "c",
    }
    assert range_of(layers, policy.Params(num_bits=(2, 4)), "size_bits") == Range(1800, 2000)


def test_a_run_finds_the_smallest_and_the_next_run_computes_nothing(tiny):
    tiny.edit("w4a4: {bitops: w4a4}", f"{TARGET}\ndevices: []")
    before = tiny.plan()
    assert before["policy small-1"]["state"] == before["deployable small"]["state"] == "may run"
    ran = tiny.run()
    cells = re.findall(r"^(\S+ small\S*): done", ran.stdout, re.MULTILINE)
    assert cells[:6] == [f"{stage} small-{n}" for n in (1, 2, 3) for stage in ("policy", "finetuned_model")]
    assert "deployable small" in cells
    assert "finetuned_model small-uniform" in cells
    assert tiny.computed() == []
    assert {cell["state"] for cell in tiny.plan().values()} == {"cached"}


def test_a_target_out_of_reach_keeps_the_other_budgets_and_ends_in_one_line(tiny):
    with (tiny.folder / "tinynet.py").open("a") as module:
        module.write(LOSSES)
    judged = "task: {loss: tinynet:loss, metric: tinynet:losses, direction: minimize}"
    tiny.edit("w4a4: {bitops: w4a4}", "w2a2: {bitops: w2a2}\n  small: {smallest: {metric_drop: 0.0, tries: 1}}")
    tiny.edit("num_bits: [2, 4, 8]", "num_bits: [2]")
    tiny.edit("train: {epochs: 2,", "train: {epochs: 20, learning_rate: 0.1,")
    tiny.edit("finetune: {epochs: 1, batch_size: 16}", f"finetune: none\ndevices: []\nbaselines: []\n{judged}")
    done = tiny.mixbit("run", tiny.file)
    assert done.returncode == 1, done.stdout
    assert re.fullmatch(r"error: small: even the largest policy, .* at best, .*\n", done.stderr), done.stderr
    assert "w2a2" in done.stdout.partition("Policies:")[2]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("{metric_drop: -1}", r"budgets.w4a4.smallest.metric_drop: .*expected a number >= 0"),
        ("{metric_drop: 1, cost: bitop}", r"budgets.w4a4.smallest.cost: .*Did you mean bitops"),
        ("{metric_drp: 1}", r"budgets.w4a4.smallest.metric_drp: unknown key.*metric_drop"),
        ("{metric_drop: 1}, bitops: w4a4", r"budgets.w4a4.bitops: unknown key"),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_its_line(offline_tiny, target, said):
    offline_tiny.edit("{bitops: w4a4}", f"{{smallest: {target}}}")
    done = offline_tiny.mixbit("plan", offline_tiny.file, "--json")
    assert done.returncode == 2
    assert re.search(said, done.stderr), done.stderr
    assert json.loads(done.stdout or "{}") == {}

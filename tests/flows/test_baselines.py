"""Baselines as an experiment names them."""

import re

import pytest

NAMES = ("uniform", "reversed", "statistics_init_only", "random", "greedy")


def test_each_baseline_is_a_cached_cell_and_a_row_of_its_own(again):
    again.edit("finetune:", f"baselines: [{', '.join(NAMES)}]\nfinetune:")
    assert {f"baseline w4a4-{name}" for name in NAMES} <= set(again.plan())
    first = again.run()
    assert all(f"finetuned_model w4a4-{name}: " in first.stdout for name in NAMES)
    table = first.stdout.partition("Policies:")[2]
    assert all(f"\n  {row}" in table for row in ("w4a4-uniform ", "w4a4-reversed ", "statistics_i"))
    assert again.computed() == []


def test_no_baselines_spare_their_fine_tuning(offline_tiny):
    offline_tiny.edit("finetune:", "baselines: []\nfinetune:")
    assert not [cell for cell in offline_tiny.plan() if "uniform" in cell]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("finetune:", "baselines: [revresed]\nfinetune:", r"baselines\[0\]: unknown baseline.*mean reversed"),
        (
            "finetune:",
            "baselines: [uniform, uniform]\nfinetune:",
            "baselines: expected each name once; more",
        ),
        ("budgets:\n  w4a4: {bitops: w4a4}", "policy: p.json\nbaselines: [reversed]", "a given policy has not"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused_before_anything_runs(offline_tiny, old, new, said):
    (offline_tiny.folder / "p.json").write_text("{}")
    offline_tiny.edit(old, new)
    done = offline_tiny.mixbit("plan", offline_tiny.file)
    assert done.returncode == 2
    assert re.search(said, done.stderr), done.stderr

"""The statistics behind the claim."""

import math
import statistics

import pytest

from benchmarks.claim_table import difference, mean_and_error, table


def trial(policy, seed, correct, losses=None):
    given = {"correct": correct, "losses": losses or [1.0 - value for value in correct]}
    return {"policy": policy, "seed": seed, "bitops": 2e6, "mean_bits": [3.0, 3.5], **given}


def test_the_error_of_one_seeds_accuracy_is_the_binomial_one():
    mean, error = mean_and_error([trial("limpq", 0, [1] * 90 + [0] * 10)], "correct")
    assert mean == pytest.approx(0.9)
    assert error == pytest.approx(math.sqrt(0.9 * 0.1 / 99))


def test_a_difference_is_paired_by_seed_and_picture():
    """Pictures that both policies get wrong say nothing, and the order of seeds does not matter."""
    hard = [1, 0] * 50
    first = [trial("a", seed, hard) for seed in (0, 1)]
    second = [trial("b", seed, hard) for seed in (1, 0)]
    same = difference(first, second, "correct")
    assert (same.mean, same.over_seeds, same.over_pictures) == (0, 0, 0)


def test_the_interval_over_seeds_is_students():
    gaps = [0.02, 0.03, 0.07]
    first = [trial("a", seed, [0] * 100, [1 + gap] * 100) for seed, gap in enumerate(gaps)]
    second = [trial("b", seed, [0] * 100, [1.0] * 100) for seed in range(3)]
    found = difference(first, second, "losses")
    assert found.mean == pytest.approx(0.04)
    assert found.over_seeds == pytest.approx(4.303 * statistics.stdev(gaps) / math.sqrt(3))
    assert found.over_pictures == pytest.approx(0)


def test_one_seed_says_nothing_about_other_seeds():
    assert difference([trial("a", 0, [1, 0])], [trial("b", 0, [1, 1])], "correct").over_seeds == math.inf


def test_the_table_gives_every_policy_and_what_the_first_gains():
    told = table([trial("limpq", 0, [1] * 9 + [0]), trial("uniform", 0, [1] * 8 + [0] * 2)], "limpq").splitlines()
    assert told[2].startswith("| limpq | 1 | 2.00 M | 3.00 / 3.50 | 90.00 ± 10.00 |")
    assert told[-1].startswith("| uniform | +10.00 |")

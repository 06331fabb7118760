import pytest

from mixbit.errors import MixbitError
from mixbit.training.kept_numbers import KeptNumbers


def never():
    raise AssertionError("computed again")


def test_a_row_is_computed_once_also_after_a_kill(tmp_path):
    kept = KeptNumbers(tmp_path, ["a", 1], every_s=0.0)
    assert kept.row("x", lambda: [0.1, 1 / 3]) == kept.row("x", never) == [0.1, 1 / 3]
    assert KeptNumbers(tmp_path, ["a", 1]).row("x", never) == [0.1, 1 / 3]


def test_rows_of_another_run_are_not_taken_up(tmp_path):
    KeptNumbers(tmp_path, ["a", 1], every_s=0.0).row("x", lambda: [1.0])
    assert KeptNumbers(tmp_path, ["a", 2]).row("x", lambda: [2.0]) == [2.0]


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    KeptNumbers(tmp_path, "a", every_s=0.0).row("x", lambda: [1.0])
    for path in tmp_path.glob("*.json"):
        path.write_bytes(path.read_bytes()[:-9])
    assert KeptNumbers(tmp_path, "a").row("x", lambda: [2.0]) == [2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_its_name(tmp_path, bad):
    with pytest.raises(MixbitError, match="probe 3: NaN or infinity"):
        KeptNumbers(tmp_path, "a").row("probe 3", lambda: [0.0, bad])

"""The grid of a sweep, without any experiment behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mixbit.sweep import Cell, Sweep, applied, cells_of, experiment_name

DATA = {
    "seed": 0,
    "budgets": {"a": {"bitops": "w4a4"}, "b": {"bitops": "w3a3"}},
    "model": {"factory": "m:f", "train": 1},
}


def sweep(axes, **more):
    return Sweep(name="night", base="base.yaml", axes=axes, **more)


def cell(axis, label, value):
    return Cell({axis: label}, {axis: value})


def test_the_last_axis_varies_fastest():
    cells = cells_of(sweep({"seed": [0, 1], "budgets": ["a", "b"]}))
    assert [one.name for one in cells] == [
        "seed=0 budgets=a", "seed=0 budgets=b", "seed=1 budgets=a", "seed=1 budgets=b",
    ]  # fmt: skip


def test_an_exclusion_leaves_out_every_cell_that_agrees_with_it():
    cells = cells_of(sweep({"seed": [0, 1], "budgets": ["a", "b"]}, exclude=({"seed": 1, "budgets": "a"},)))
    assert [one.name for one in cells] == ["seed=0 budgets=a", "seed=0 budgets=b", "seed=1 budgets=b"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_there_are_as_many_cells_as_the_product_of_the_axes(sizes):
    cells = cells_of(sweep({f"axis{place}": list(range(size)) for place, size in enumerate(sizes)}))
    product = 1
    for size in sizes:
        product *= size
    assert len({one.name for one in cells}) == len(cells) == product


def test_axes_whose_last_words_are_alike_are_told_by_their_paths():
    (one,) = cells_of(sweep({"finetune.epochs": [1], "indicators.settings.epochs": [2]}))
    assert one.name == "finetune.epochs=1 indicators.settings.epochs=2"


def test_a_budget_by_name_is_the_only_one_of_its_cell():
    assert applied(cell("budgets", "b", "b"), DATA)["budgets"] == {"b": {"bitops": "w3a3"}}


def test_a_budget_by_value_takes_its_name():
    assert applied(cell("budgets", "c", {"bitops": 5}), DATA)["budgets"] == {"c": {"bitops": 5}}


def test_a_mapping_is_laid_over_the_bases_own():
    whole = applied(cell("model", "new", {"factory": "m:g"}), DATA)
    assert whole["model"] == {"factory": "m:g", "train": 1}
    assert DATA["model"]["factory"] == "m:f"


def test_a_path_makes_what_the_base_does_not_have():
    assert applied(cell("indicators.settings.epochs", "3", 3), DATA)["indicators"] == {"settings": {"epochs": 3}}


@pytest.mark.parametrize("axis", ["seed.deeper", "model.train.epochs"])
def test_a_path_through_what_is_no_mapping_is_refused(axis):
    with pytest.raises(TypeError):
        applied(cell(axis, "3", 3), DATA)


@pytest.mark.parametrize(
    "axes", [{"seed": []}, {"seed": [1, 1]}, {"": [1]}, {"a b": [1]}, {"model": [1], "model.train": [2]}, {}]
)
def test_axes_that_say_nothing_or_too_much_are_refused(axes):
    with pytest.raises(ValidationError):
        sweep(axes)


def test_a_grid_beyond_reason_is_refused():
    with pytest.raises(ValidationError, match="at most"):
        sweep({"a": list(range(100)), "b": list(range(100))})


def test_cells_whose_labels_only_differ_in_odd_characters_have_experiments_of_their_own():
    names = {
        experiment_name("night", cell("model", label, label)) for label in ("a b", "a-b", "a/b", "a" * 80, "a" * 81)
    }
    assert len(names) == 5
    assert all(len(name) <= 60 for name in names)

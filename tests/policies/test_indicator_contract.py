"""Every file of policies/indicators keeps the folder's contract; a new file is found by itself."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from mixbit.config import Settings
from mixbit.indicators import check_table
from mixbit.load import load_method, method_names
from mixbit.models.graph import describe_layers
from mixbit.training.numerics import fixed_numerics
from tests.policies.indicator_case import FOLDER, NUM_BITS, SHAPE, as_bytes, compute, resnet, searched

METHODS = method_names(FOLDER)
RANDOM = {"limpq", "hawq"}  # what draws anything beside pictures: the order of batches, assignments, probes


@pytest.fixture(autouse=True)
def one_thread():
    with fixed_numerics(1):
        yield


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def made(method, tmp_path_factory):
    with fixed_numerics(1):
        return compute(method, tmp_path_factory.mktemp(method))


def test_there_are_methods():
    assert {"limpq", "loss_delta", "fisher", "hawq", "ompq"} <= set(METHODS)


def test_harm_is_complete_finite_and_never_rises_with_bits(method, made):
    indicators, _ = made
    check_table(indicators["layers"], searched(describe_layers(resnet(), SHAPE)), NUM_BITS, method)


def test_few_bits_harm_more_than_many_somewhere(made):
    for kind in ("weight", "activation"):
        assert any(row[kind]["2"] > row[kind]["6"] for row in made[0]["layers"].values())


def test_the_answer_has_every_part(made):
    indicators, tensors = made
    assert {"layers", "raw", "repairs", "cost", "step_movement"} <= set(indicators)
    assert set(indicators["cost"]) == {"forward_passes", "backward_passes", "samples"}
    assert all(type(value) is int and value >= 0 for value in indicators["cost"].values())
    assert indicators["cost"]["forward_passes"] >= 1
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_a_method_says_whether_it_gives_harm_from_before_its_training(method, made):
    assert ("initial" in made[0]) == getattr(load_method(FOLDER, method), "INITIAL", False)


def test_raw_and_repairs_explain_the_table(made):
    indicators, _ = made
    told = {(r["layer"], r["kind"], str(r["num_bits"])): (r["from"], r["to"]) for r in indicators["repairs"]}
    for name, kinds in indicators["layers"].items():
        for kind, row in kinds.items():
            for bits, harm in row.items():
                raw = indicators["raw"][name][kind][bits]
                assert told.get((name, kind, bits), (raw, raw)) == (raw, harm)


def test_equal_inputs_give_equal_bytes(method, made, tmp_path):
    assert as_bytes(compute(method, tmp_path)) == as_bytes(made)


def test_the_seed_matters_only_where_something_is_drawn(method, made, tmp_path):
    other = compute(method, tmp_path, seed=1)
    assert (as_bytes(made) != as_bytes(other)) == (method in RANDOM)


def test_only_searched_layers_are_judged(method, tmp_path):
    names = searched(describe_layers(resnet(), SHAPE))[:3]
    assert set(compute(method, tmp_path, names=names)[0]["layers"]) == set(names)


def test_readers_of_one_tensor_share_its_harm_equally(method, made, tmp_path, monkeypatch):
    for place in ("mixbit.indicators", f"{FOLDER}.{method}"):
        monkeypatch.setattr(f"{place}.share_activations", lambda table, shared: table, raising=False)
    whole, shared = compute(method, tmp_path)[0]["raw"], made[0]["raw"]
    groups = describe_layers(resnet(), SHAPE)["shared_activations"]
    assert groups
    for group in groups:
        for name in group:
            part = {bits: harm / len(group) for bits, harm in whole[group[0]]["activation"].items()}
            assert shared[name]["activation"] == pytest.approx(part)


def test_float_is_no_candidate_that_harms(method, tmp_path):
    indicators, _ = compute(method, tmp_path, num_bits=(4, "float"))
    assert all(
        row == {"4": row["4"], "float": 0.0} for kinds in indicators["layers"].values() for row in kinds.values()
    )


def test_progress_never_goes_back_or_beyond_its_total(method, tmp_path):
    told = []
    compute(method, tmp_path, progress=lambda done, total, note: told.append((done, total, note)))
    assert all(0 <= done <= total and isinstance(note, str) for done, total, note in told)
    assert told
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_killed_run_ends_with_the_same_bytes(method, made, tmp_path, monkeypatch):
    monkeypatch.setattr("mixbit.training.kept_numbers.EVERY_S", 0.0)

    def progress(done, total, note):
        if done in {2, total}:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(method, tmp_path, progress=progress)
    assert as_bytes(compute(method, tmp_path)) == as_bytes(made)


def test_settings_are_frozen_with_defaults_and_refuse_what_they_do_not_know(method):
    model = load_method(FOLDER, method).Settings
    assert issubclass(model, Settings)
    assert "Attributes:" in model.__doc__
    assert all(f"{name}:" in model.__doc__ for name in model.model_fields)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model(), next(iter(model.model_fields)), 1)
    with pytest.raises(ValidationError, match="nosuch"):
        model(nosuch=1)


def test_a_method_names_its_source(method):
    told = load_method(FOLDER, method).__doc__
    assert "https://" in told or "no paper" in told


def test_no_method_imports_torch_when_it_is_imported():
    names = ", ".join(f"{FOLDER}.{name}" for name in METHODS)
    subprocess.run([sys.executable, "-c", f"import sys, {names}; sys.exit('torch' in sys.modules)"], check=True)

"""Every file of policies/searches, and the evolution."""

import subprocess
import sys
from itertools import product

import pytest
from pydantic import ValidationError

from mixbit.config import Settings as Base
from mixbit.costs import policy_costs, resolve_limits
from mixbit.entries import candidates
from mixbit.errors import MixbitError
from mixbit.load import load_method, method_names
from mixbit.models.graph import describe_layers
from mixbit.policy import canonical_json
from mixbit.training.numerics import fixed_numerics
from mixbit.training.task import classification
from policies.search import Search, harm_table
from policies.searches.evolution import Settings, decoded, evolve
from policies.table import Ties
from tests.policies.indicator_case import SHAPE, pictures, quiet, resnet

FOLDER = "policies.searches"
QUICK = {"evolution": {"population": 4, "parents": 2, "generations": 3}}
BITS = (2, 4, 6)


@pytest.fixture(autouse=True)
def one_thread():
    with fixed_numerics(1):
        yield


@pytest.fixture(params=method_names(FOLDER))
def method(request):
    return request.param


def searching(layers, budget):
    table, _ = harm_table(layers, candidates(layers, BITS, "limpq", {}), None, 1.0)
    limits = resolve_limits(budget, layers, "limpq", {})
    return Search(BITS, "limpq", {}, table=table, limits=limits, ties=Ties(activation=layers["shared_activations"]))


def chosen(method, folder, budget=None, seed=0, progress=quiet):
    found, layers = load_method(FOLDER, method), describe_layers(resnet(), SHAPE)
    return found.choose(
        model=resnet(), layers=layers, pictures=pictures(), task=classification(),
        settings=found.Settings(**QUICK.get(method, {})), search=searching(layers, budget or {"bitops": "w3a3"}),
        seed=seed, checkpoint=folder, progress=progress,
    )  # fmt: skip


def test_a_policy_keeps_limits_ties_and_fixed_layers(method, tmp_path):
    layers = describe_layers(resnet(), SHAPE)
    policy, evidence = chosen(method, tmp_path, {"bitops": "w3a3", "size_bits": "9x"})
    costs, limits = policy_costs(policy, layers), searching(layers, {"bitops": "w3a3", "size_bits": "9x"}).limits
    assert all(costs[name] <= limit for name, limit in limits.items())
    assert all(len({policy[name][1] for name in group}) == 1 for group in layers["shared_activations"])
    assert policy[layers["first"]] == policy[layers["last"]] == (8, 8)
    assert set(evidence["cost"]) == {"forward_passes", "backward_passes", "samples"}


def test_equal_inputs_give_equal_answers_also_after_a_kill(method, tmp_path, monkeypatch):
    monkeypatch.setattr("mixbit.training.kept_numbers.EVERY_S", 0.0)

    def progress(done, total, note):
        if done == 6:
            raise KeyboardInterrupt

    undisturbed = chosen(method, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        chosen(method, tmp_path / "b", progress=progress)
    assert canonical_json(chosen(method, tmp_path / "b")) == canonical_json(undisturbed)


def test_a_budget_below_the_least_is_refused(method, tmp_path):
    with pytest.raises(MixbitError, match="no policy fits"):
        chosen(method, tmp_path, {"bitops": 10})


def test_settings_are_frozen_with_documented_defaults(method):
    model = load_method(FOLDER, method).Settings
    assert issubclass(model, Base)
    assert all(f"{name}:" in model.__doc__ for name in model.model_fields)
    with pytest.raises(ValidationError, match="nosuch"):
        model(nosuch=1)


def test_no_search_imports_torch_when_it_is_imported():
    names = ", ".join(f"{FOLDER}.{name}" for name in method_names(FOLDER))
    subprocess.run([sys.executable, "-c", f"import sys, {names}; sys.exit('torch' in sys.modules)"], check=True)


def small_search():
    macs = {"a": 1000, "b": 3000, "c": 2000}
    table = {n: {(w, a): (0, {"bitops": m * w * a}) for w, a in product(BITS, BITS)} for n, m in macs.items()}
    return Search(BITS, "none", {}, table=table, limits={"bitops": 90_000})


def entangled(policy):
    """Weights of a and activations of c matter most; b's weight matters the more, the fewer bits a's has."""
    of = {"a": (90.0, 0.1), "b": (0.1, 1.0), "c": (0.3, 70.0)}
    own = sum(of[name][0] * 4.0**-w + of[name][1] * 4.0**-a for name, (w, a) in policy.items())
    return own + 2000 * 4.0 ** -(policy["a"][0] + policy["b"][0])


def evolved(search, loss, seed, **settings):
    return evolve(lambda genes: decoded(genes, search), loss, len(search.table), Settings(**settings), seed=seed,
                  progress=quiet)  # fmt: skip


def test_evolution_finds_the_best_of_all_policies_where_layers_depend_on_each_other():
    search = small_search()
    best, history = evolved(search, entangled, 0, population=10, generations=10, parents=4, mutation=0.3)
    every = (dict(zip("abc", entries, strict=True)) for entries in product(product(BITS, BITS), repeat=3))
    allowed = [p for p in every if sum(search.table[n][e][1]["bitops"] for n, e in p.items()) <= 90_000]
    assert entangled(best) == pytest.approx(min(map(entangled, allowed)))
    assert history[-1] < history[0]


def test_the_best_loss_never_rises_and_equal_policies_are_measured_once():
    search, asked = small_search(), []

    def loss(policy):
        asked.append(canonical_json(policy))
        return entangled(policy)

    _, history = evolved(search, loss, 1, population=6, generations=6, parents=3)
    assert history == sorted(history, reverse=True)
    assert len(asked) == len(set(asked)) < 36


def test_more_parents_than_population_are_refused():
    with pytest.raises(ValidationError, match="parents <= population"):
        Settings(population=4, parents=8)

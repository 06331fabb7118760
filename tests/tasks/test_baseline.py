"""Stage `baseline`."""

import json

import pytest
from pydantic import ValidationError

from mixbit.errors import MixbitError
from mixbit.policy import dump_policy, load_policy
from tasks import baseline
from tasks.stage import Work

LAYERS = {
    "layers": [
        {"name": name, "macs": 1000, "weights": 100, "out_channels": 4, "never_run": False}
        for name in ("stem", "a", "b", "head")
    ],
    "shared_activations": [],
    "first": "stem",
    "last": "head",
}
MIXED = {"stem": (8, 8), "a": (4, 4), "b": (3, 3), "head": (8, 8)}


def run(tmp_path, params, **inputs):
    paths = {name: tmp_path / name for name in ("layers", *inputs)}
    for name, content in {"layers": json.dumps(LAYERS).encode(), **inputs}.items():
        paths[name].write_bytes(content)
    work = Work(paths, {}, tmp_path, tmp_path, lambda *_: None, tmp_path, ())
    figures = baseline.compute(work, baseline.Params(**params))
    return figures, load_policy((tmp_path / "policy.json").read_bytes(), "policy.json")


def test_the_float_reference_is_float_everywhere(tmp_path):
    figures, made = run(tmp_path, {"weight_bits": "float", "activation_bits": "float"})
    assert set(made.values()) == {("float", "float")}
    assert figures["bitops"] == 4 * 1000 * 1024


def test_the_w8a8_reference_leaves_excluded_layers_float(tmp_path):
    _, made = run(tmp_path, {"weight_bits": 8, "activation_bits": 8, "excluded": ("a*",)})
    assert made == dict.fromkeys(("stem", "b", "head"), (8, 8)) | {"a": ("float", "float")}


def test_the_baseline_of_a_policy_costs_no_less(tmp_path):
    figures, made = run(tmp_path, {"search": {"num_bits": (2, 3, 4, 8)}}, policy=dump_policy(MIXED))
    assert made["a"] == made["b"] == (4, 4)
    assert figures["mean_weight_bits"] == 6


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"weight_bits": 4},
        {"weight_bits": 9, "activation_bits": 4},
        {"weight_bits": 4, "activation_bits": 4, "search": {}},
    ],
)
def test_half_a_declaration_is_refused(params):
    with pytest.raises(ValidationError):
        baseline.Params(**params)


def test_a_baseline_reads_the_harm_that_its_file_names(tmp_path):
    rows = {"weight": {"2": 4.0, "4": 1.0, "float": 0.0}, "activation": {"2": 4.0, "4": 1.0, "float": 0.0}}
    light = {kind: {bits: harm / 9 for bits, harm in row.items()} for kind, row in rows.items()}
    indicators = {"method": "limpq", "layers": {"a": rows, "b": light}, "initial": {"a": light, "b": rows}}
    given = {"policy": dump_policy(MIXED | {"b": (2, 2)}), "indicators": json.dumps(indicators).encode()}
    search = {"budget": {"bitops": 148_000}, "num_bits": (2, 4)}
    made = {
        method: run(tmp_path, {"method": method, "search": search}, **given)[1]
        for method in ("statistics_init_only", "reversed")
    }
    assert [(policy["a"], policy["b"]) for policy in made.values()] == [((2, 2), (4, 4))] * 2


@pytest.mark.parametrize("method", ["random", "greedy"])
def test_a_baseline_that_solves_nothing_keeps_the_budget_of_the_search(tmp_path, method):
    row = {"2": 4.0, "4": 1.0, "float": 0.0}
    indicators = {"method": "limpq", "layers": {n: {"weight": row, "activation": row} for n in ("a", "b")}}
    given = {"policy": dump_policy(MIXED | {"b": (2, 2)}), "indicators": json.dumps(indicators).encode()}
    params = {"method": method, "search": {"budget": {"bitops": 150_000}, "num_bits": (2, 4)}}
    figures, made = run(tmp_path, params, **given)
    assert figures["bitops"] <= 150_000
    assert made["stem"] == made["head"] == (8, 8)


def test_indicators_without_initial_harm_are_refused_in_words(tmp_path):
    given = {"policy": dump_policy(MIXED), "indicators": json.dumps({"method": "other", "layers": {}}).encode()}
    search = {"budget": {"bitops": 148_000}, "num_bits": (2, 4)}
    with pytest.raises(MixbitError, match="the indicators of other have no initial harm"):
        run(tmp_path, {"method": "statistics_init_only", "search": search}, **given)


def test_the_method_is_part_of_the_code_that_makes_the_result():
    assert baseline.modules(baseline.Params(weight_bits=4, activation_bits=4)) == ("policies.baselines.uniform",)

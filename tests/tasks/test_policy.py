"""Stage `policy`."""

import hashlib
import json

import pytest

from mixbit import simulate
from mixbit.costs import policy_costs
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.policy import load_policy
from tasks import policy
from tasks.stage import Work

NAMES = ("stem", "a", "b", "skip", "head")
LAYERS = {
    "layers": [
        {"name": name, "macs": 1000 * (i + 1), "weights": 100 * (i + 1), "out_channels": 4, "never_run": False}
        for i, name in enumerate(NAMES)
    ],
    "shared_activations": [["a", "skip"]],
    "first": "stem",
    "last": "head",
}
BITS = (2, 4, 8)
INDICATORS = {
    "layers": {
        name: {
            "weight": {str(b): 4.0**-b * (i + 1) for b in BITS} | {"float": 0.0},
            "activation": {str(b): 3.0**-b for b in BITS} | {"float": 0.0},
        }
        for i, name in enumerate(("a", "b", "skip"))
    }
}
SEARCH = {"budget": {"bitops": "w4a4"}, "num_bits": BITS}
GIVEN = {name: {"weight_bits": 4, "activation_bits": 4} for name in NAMES}


def run(tmp_path, params, **inputs):
    paths = {}
    for name, content in {"layers": LAYERS, **inputs}.items():
        paths[name] = tmp_path / name
        paths[name].write_text(content if isinstance(content, str) else json.dumps(content))
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    work = Work(paths, digests, out, tmp_path, lambda *_: None, tmp_path, ())
    figures = policy.compute(work, policy.Params(**params))
    made = load_policy((out / "policy.json").read_bytes(), "policy.json")
    return figures, made, json.loads((out / "choice.json").read_text())


def test_the_search_keeps_its_budget_and_the_fixed_layers(tmp_path):
    figures, made, choice = run(tmp_path, SEARCH, indicators=INDICATORS)
    assert made["stem"] == made["head"] == (8, 8)
    assert figures["bitops"] == policy_costs(made, LAYERS)["bitops"] <= choice["budget"]["bitops"]
    assert choice["status"] == "optimal"


def test_readers_of_one_tensor_share_activation_bits(tmp_path):
    _, made, _ = run(tmp_path, SEARCH | {"budget": {"bitops": 420_000}}, indicators=INDICATORS)
    assert made["a"][1] == made["skip"][1]


def test_a_group_shares_both_bits(tmp_path):
    _, made, _ = run(tmp_path, SEARCH | {"groups": (("a", "b"),)}, indicators=INDICATORS)
    assert made["a"] == made["b"]


def test_the_choice_names_the_policy_and_the_indicators_by_digest(tmp_path):
    _, _, choice = run(tmp_path, SEARCH, indicators=INDICATORS)
    written = (tmp_path / "out" / "policy.json").read_bytes()
    assert choice["policy_sha256"] == hashlib.sha256(written).hexdigest()
    assert choice["indicators_sha256"] == hashlib.sha256((tmp_path / "indicators").read_bytes()).hexdigest()
    assert choice["requested"] == {"bitops": "w4a4"}


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    def written():
        run(tmp_path, SEARCH, indicators=INDICATORS)
        return [(tmp_path / "out" / name).read_bytes() for name in policy.OUTPUTS]

    assert written() == written()


def test_alpha_weighs_weight_harm():
    search = policy.search_of(policy.Params(**SEARCH, alpha=3.0), LAYERS, INDICATORS["layers"])
    assert search.table["b"][2, 4][0] == 3.0**-4 + 3.0 * (4.0**-2 * 2)


def test_a_balanced_alpha_gives_weights_as_much_to_lose_as_activations():
    harm = {name: {"weight": {"2": 1.0, "4": 0.5}, "activation": {"2": 8.0, "4": 2.0}} for name in NAMES}
    search = policy.search_of(policy.Params(**SEARCH | {"num_bits": (2, 4)}), LAYERS, harm)
    assert search.alpha == 6.0 / 0.5
    assert search.table["b"][2, 2][0] == 8.0 + 12.0 * 1.0


def test_without_harm_of_weights_there_is_nothing_to_balance():
    harm = {name: {"weight": {"2": 1.0, "4": 1.0}, "activation": {"2": 8.0, "4": 2.0}} for name in NAMES}
    assert policy.search_of(policy.Params(**SEARCH | {"num_bits": (2, 4)}), LAYERS, harm).alpha == 1.0


def test_a_search_without_indicators_costs_the_same_and_harms_nothing():
    params = policy.Params(**SEARCH)
    judged, unjudged = policy.search_of(params, LAYERS, INDICATORS["layers"]), policy.search_of(params, LAYERS)
    assert {harm for row in unjudged.table.values() for harm, _ in row.values()} == {0.0}
    assert (unjudged.limits, unjudged.ties) == (judged.limits, judged.ties)
    assert unjudged.table["b"][2, 4][1] == judged.table["b"][2, 4][1]


def test_an_infeasible_budget_says_the_smallest_that_works(tmp_path):
    smallest = 64 * 6000 + 4 * 9000
    with pytest.raises(
        MixbitError, match=f"no policy fits.*bitops 1000.*Smallest feasible: bitops {smallest}"
    ) as caught:
        run(tmp_path, SEARCH | {"budget": {"bitops": 1000}}, indicators=INDICATORS)
    assert caught.value.exit_code == 1
    assert run(tmp_path, SEARCH | {"budget": {"bitops": smallest}}, indicators=INDICATORS)[1]["b"] == (2, 2)


def test_two_limits_infeasible_together_each_say_their_smallest(tmp_path):
    budget = {"bitops": 64 * 6000 + 4 * 9000, "size_bits": 1}
    with pytest.raises(MixbitError, match="with the other limits kept: bitops 420000, size_bits 6600"):
        run(tmp_path, SEARCH | {"budget": budget}, indicators=INDICATORS)


def test_candidates_that_the_indicators_lack_are_an_error(tmp_path):
    with pytest.raises(MixbitError, match="indicators: a: no harm of weight bits, expected 3"):
        run(tmp_path, SEARCH | {"num_bits": (2, 3)}, indicators=INDICATORS)


def test_a_given_policy_comes_out_as_it_is(tmp_path):
    figures, made, choice = run(tmp_path, {}, file=GIVEN)
    assert set(made.values()) == {(4, 4)}
    assert choice["status"] == "given"
    assert figures["mean_weight_bits"] == 4


def test_a_given_policy_may_be_yaml(tmp_path):
    lines = [f"{name}: {{weight_bits: 3, activation_bits: float}}" for name in NAMES]
    assert run(tmp_path, {}, file="\n".join(lines))[1]["a"] == (3, "float")


def test_a_given_policy_tells_every_missing_and_unknown_layer(tmp_path):
    wrong = {("heed" if name == "head" else name): entry for name, entry in GIVEN.items()}
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, {}, file=wrong)
    assert str(caught.value).splitlines() == [
        "policy file: heed: no such layer. Did you mean head?",
        "policy file: head: missing. A policy names every layer",
    ]


def test_a_given_policy_must_agree_where_one_tensor_is_read(tmp_path):
    wrong = GIVEN | {"skip": {"weight_bits": 4, "activation_bits": 8}}
    with pytest.raises(ConfigError, match="a, skip read one tensor, so they share activation bits, got a 4, skip 8"):
        run(tmp_path, {}, file=wrong)


def test_a_given_policy_must_keep_the_groups(tmp_path):
    wrong = GIVEN | {"b": {"weight_bits": 2, "activation_bits": 4}}
    with pytest.raises(ConfigError, match="a, b share bits, by groups"):
        run(tmp_path, {"groups": (("a", "b"),)}, file=wrong)


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "", "{}"])
def test_a_file_that_is_no_policy_is_misuse_without_its_digest_name(tmp_path, content):
    with pytest.raises(MisuseError, match=r"^policy file") as caught:
        run(tmp_path, {}, file=content)
    assert str(tmp_path) not in str(caught.value)


def test_an_unknown_group_member_is_misuse(tmp_path):
    with pytest.raises(MisuseError, match=r"groups\[0\]: unknown layer, got bb"):
        run(tmp_path, SEARCH | {"groups": (("a", "bb"),)}, indicators=INDICATORS)


# Float layers take 10 us, int8 ones 4, a change of precision 3, and everything 5 more than that.
TABLE = {
    "layers": {name: {"float": 10.0, "int8": 4.0} for name in NAMES},
    "boundaries": [
        {"from": a, "to": b, "float_int8_us": 3.0, "int8_float_us": 3.0}
        for a, b in (("stem", "a"), ("a", "b"), ("b", "head"))
    ],
    "offset_us": 5.0,
    "reference_us": {"float": 60.0, "w8a8": 25.0},
    "error": 0.05,
}
TIMED = {"num_bits": (*BITS, "float"), "budget": {"latency[local]": "44 us"}}
TABLE_INPUT = {"indicators": INDICATORS, "latency_table.local": TABLE}


def test_layers_stay_float_as_far_as_the_latency_allows(tmp_path):
    # All int8 takes 25 us; a and skip share their tensor, so 12 us together, and 3 us at each end.
    _, made, choice = run(tmp_path, TIMED, **TABLE_INPUT)
    assert {name for name, entry in made.items() if entry == ("float", "float")} == {"a", "skip"}
    assert choice["predicted_us"] == {"local": 43.0}
    assert (choice["costs"]["latency[local]"], choice["budget"]["latency[local]"]) == (43.0, 44.0)
    assert choice["executed"] == {"float": 2, "int8": 3}


@pytest.mark.parametrize(("limit", "floats"), [("0.9x float", 3), ("2x w8a8", 3), ("1x w8a8", 0), ("49 us", 3)])
def test_a_latency_may_be_relative_to_either_reference(tmp_path, limit, floats):
    _, _, choice = run(tmp_path, TIMED | {"budget": {"latency[local]": limit}}, **TABLE_INPUT)
    assert choice["candidates"][0]["executed"]["float"] == floats


def test_latency_and_other_costs_hold_together(tmp_path):
    both = TIMED | {"budget": {"latency[local]": "1 ms", "bitops": "w4a4"}}
    _, made, choice = run(tmp_path, both, **TABLE_INPUT)
    assert policy_costs(made, LAYERS)["bitops"] <= choice["budget"]["bitops"]


def test_candidates_differ_in_what_is_executed_and_end_with_the_fastest(tmp_path):
    _, _, choice = run(tmp_path, TIMED, **TABLE_INPUT)
    candidates = choice["candidates"]
    assert candidates[0]["kind"] == "best"
    assert candidates[-1]["kind"] == "fastest"
    assert candidates[-1]["predicted_us"] == {"local": 25.0}
    assert len({str(one["executed"]) for one in candidates}) == len(candidates)


def test_the_fastest_candidate_is_the_least_harmful_of_its_kind(tmp_path):
    _, made, choice = run(tmp_path, TIMED | {"budget": {"latency[local]": "1 us"}}, **TABLE_INPUT)
    assert [one["kind"] for one in choice["candidates"]] == ["fastest"]
    assert made == dict.fromkeys(NAMES, (8, 8))


def test_other_limits_that_no_policy_keeps_are_told_as_ever(tmp_path):
    both = TIMED | {"budget": {"latency[local]": "1 ms", "bitops": 1}}
    with pytest.raises(MixbitError, match=r"no policy fits \(bitops 1\). Smallest feasible: bitops \d+"):
        run(tmp_path, both, **TABLE_INPUT)


def test_a_simulated_latency_is_a_limit_like_any_other_and_needs_no_table(tmp_path):
    cost = "latency[simulated:bitfusion]"
    figures, made, choice = run(tmp_path, SEARCH | {"budget": {cost: "0.5x w8a8"}}, indicators=INDICATORS)
    assert choice["costs"][cost] == simulate.policy_us("bitfusion", made, LAYERS) <= choice["budget"][cost]
    assert figures["simulated_us.bitfusion"] == choice["costs"][cost]
    assert not any("predicted" in name for name in (*figures, *choice))


def test_a_simulated_and_a_measured_latency_hold_together(tmp_path):
    cost = "latency[simulated:bitops]"
    both = TIMED | {"budget": {"latency[local]": "1 ms", cost: "0.6x w8a8"}}
    _, made, choice = run(tmp_path, both, **TABLE_INPUT)
    assert choice["budget"][cost] / 2 < simulate.policy_us("bitops", made, LAYERS) <= choice["budget"][cost]
    assert set(choice["predicted_us"]) == {"local"}


def test_a_search_depends_on_the_code_of_the_models_in_its_budget_alone():
    asked = policy.Params(**SEARCH | {"budget": {"latency[simulated:roofline]": "3 ms", "bitops": 1}})
    assert policy.modules(asked) == ("mixbit.simulated.roofline",)
    assert policy.modules(policy.Params(**SEARCH)) == ()


WITH_TENSORS = {
    **LAYERS,
    "activations": {
        "tensors": {
            name: {"elements": 1000 * (i + 1), "read_by": [reader], "written_by": []}
            for i, (name, reader) in enumerate({"x": "stem", "y": "a", "z": "b", "h": "head"}.items())
        },
        "steps": [{"step": s, "alive": list(s)} for s in ("x", "xy", "yz", "zh")],
    },
}


def test_a_limit_on_the_peak_is_kept_and_told_beside_the_other_costs(tmp_path):
    search = SEARCH | {"budget": {"peak_activation_bytes": "5.5 kB"}}
    figures, _, choice = run(tmp_path, search, layers=WITH_TENSORS, indicators=INDICATORS)
    # The head reads 4000 elements at 8 bit, so 1500 bytes are left for the 3000 that b reads: 4 bit.
    assert choice["costs"]["peak_activation_bytes"] == figures["peak_activation_bytes"] == 5500
    assert choice["budget"] == {"peak_activation_bytes": 5500}


def test_a_peak_that_nothing_fits_names_the_smallest(tmp_path):
    search = SEARCH | {"budget": {"peak_activation_bytes": 4000, "bitops": "w4a4"}}
    with pytest.raises(MixbitError, match=r"no policy fits .*Smallest feasible.*peak_activation_bytes 4750"):
        run(tmp_path, search, layers=WITH_TENSORS, indicators=INDICATORS)

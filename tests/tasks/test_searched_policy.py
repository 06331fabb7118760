import json

import pytest
from pydantic import ValidationError
from safetensors.torch import save_file

from mixbit.costs import policy_costs, resolve_limits
from mixbit.errors import MisuseError, MixbitError
from mixbit.models.build import build_model
from mixbit.policy import load_policy, policy_sha256
from tasks import searched_policy
from tests.tasks.training_case import MODEL, run, write_inputs

SETTINGS = {"population": 4, "parents": 2, "generations": 2}
PARAMS = {"method": "evolution", "settings": SETTINGS, "search": {"budget": {"bitops": "w3a3"}, "num_bits": (2, 4, 6)}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    files = write_inputs(folder)
    save_file(build_model(MODEL["factory"], MODEL["arguments"], (), seed=0).state_dict(), folder / "float_model")
    return {**files, "float_model": folder / "float_model"}


def test_a_policy_within_the_budget_and_why_it_was_chosen(inputs, tmp_path):
    files, figures = run(searched_policy, inputs, tmp_path, PARAMS)
    policy, choice = load_policy(files["policy.json"], ""), json.loads(files["choice.json"])
    layers = json.loads(inputs["layers"].read_bytes())
    limits = resolve_limits({"bitops": "w3a3"}, layers, "limpq", {})
    assert policy_costs(policy, layers)["bitops"] <= limits["bitops"] == choice["budget"]["bitops"]
    assert choice["policy_sha256"] == policy_sha256(policy)
    assert (choice["status"], choice["method"], choice["requested"]) == ("searched", "evolution", {"bitops": "w3a3"})
    assert choice["search"]["cost"]["samples"] == choice["search"]["measured_policies"] * 24
    assert figures["bitops"] == choice["costs"]["bitops"]


def test_a_group_shares_both_bits(inputs, tmp_path):
    group = ["stages.0.conv1", "stages.2.conv2"]
    search = {**PARAMS["search"], "groups": (tuple(group),)}
    files, _ = run(searched_policy, inputs, tmp_path, {**PARAMS, "search": search})
    policy = load_policy(files["policy.json"], "")
    assert policy[group[0]] == policy[group[1]]


def test_the_parameters_say_every_setting_and_the_code_behind(inputs):
    params = searched_policy.Params(**MODEL, **PARAMS)
    assert params.settings["population"] == 4
    assert "mutation" in params.settings
    assert searched_policy.modules(params) == ("policies.searches.evolution", "mixbit.models.resnet")


def test_what_cannot_be_is_refused(inputs, tmp_path):
    with pytest.raises(ValidationError, match="size"):
        searched_policy.Params(**MODEL, **{**PARAMS, "settings": {"size": 3}})
    with pytest.raises(MisuseError, match="unknown layer"):
        run(searched_policy, inputs, tmp_path, {**PARAMS, "search": {**PARAMS["search"], "groups": (("a", "b"),)}})
    with pytest.raises(MixbitError, match="no policy fits"):
        run(searched_policy, inputs, tmp_path, {**PARAMS, "search": {**PARAMS["search"], "budget": {"bitops": 5}}})

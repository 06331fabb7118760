"""Stage `baseline`: layers (and a policy to compare with) -> policy.json without a search of its own. CPU, seconds."""

import json
from dataclasses import replace
from importlib.metadata import version

from pydantic import Field, model_validator

from mixbit import costs
from mixbit.config import Settings
from mixbit.errors import MixbitError
from mixbit.experiment import Bits, LayerRule, Name
from mixbit.load import load_method
from mixbit.policy import Entry, dump_policy, load_policy, mean_bits
from policies.baselines import Search
from tasks import policy as search_stage
from tasks.stage import Work

OUTPUTS = ("policy.json",)
METHODS = "policies.baselines"


class Params(Settings):
    """Either the bits of a uniform policy, or the search behind the policy that is the input.

    Attributes:
        method: a file of policies/baselines.
        weight_bits: of every layer.
        activation_bits: of every layer.
        excluded: patterns of layers that stay float, whatever the bits.
        search: of the policy to compare with; of its fields only those count that the method reads.
    """

    method: Name = "uniform"
    weight_bits: Bits | None = None
    activation_bits: Bits | None = None
    excluded: tuple[str, ...] = ()
    search: search_stage.Params | None = Field(default=None)

    @model_validator(mode="after")
    def _one_way(self) -> "Params":
        if (self.weight_bits is not None and self.activation_bits is not None) == (self.search is not None):
            raise ValueError("expected weight_bits and activation_bits, or search")
        return self


def reads_indicators(method: str) -> bool:
    """Whether a baseline of this method needs indicators."""
    return load_method(METHODS, method).HARM is not None


def modules(params: Params) -> tuple[str, ...]:
    """The method's module."""
    return (f"{METHODS}.{params.method}",)


def facts(params: Params) -> dict[str, str]:
    """The solver, where it is asked."""
    return {name: version(name) for name in search_stage.FACTS} if reads_indicators(params.method) else {}


def compute(work: Work, params: Params) -> dict[str, float]:
    """Make the policy and count what it costs."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    method = load_method(METHODS, params.method)
    policy: dict[str, Entry]
    if params.search is None:
        rules = {pattern: LayerRule(exclude=True) for pattern in params.excluded}
        policy = method.uniform(layers, params.weight_bits, params.activation_bits, "none", rules)
    else:
        compared = load_policy(work.inputs["policy"].read_bytes(), "policy.json")
        policy = method.choose(compared, layers, _search(work, layers, params.search, method.HARM))
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    weight_bits, activation_bits = mean_bits(
        policy, {layer["name"]: layer["weights"] for layer in costs.run_layers(layers)}
    )
    totals = {name: float(value) for name, value in costs.policy_costs(policy, layers).items()}
    return totals | {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}


def _search(work: Work, layers: costs.Layers, params: search_stage.Params, harm: str | None) -> Search:
    """What the search could choose from, with the harm that the method reads."""
    plain = Search(params.num_bits, params.fixed_layers, params.layers)
    if harm is None:
        return plain
    indicators = json.loads(work.inputs["indicators"].read_bytes())
    if harm not in indicators:
        what = f"the indicators of {indicators['method']} have no {harm} harm"
        raise MixbitError("baselines", what, hint="Leave this baseline out")
    search = search_stage.search_for(work, layers, params, indicators[harm])
    return replace(
        plain,
        table=search.table,
        limits=search.limits,
        ties=search.ties,
        pairs=search.pairs,
        time_limit_s=params.time_limit_s,
    )

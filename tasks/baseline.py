"""Stage `baseline`: layers (and a policy to compare with) -> policy.json without a search of its own. CPU, seconds."""

import json
from importlib.metadata import version

from pydantic import Field, model_validator

from mixbit.config import Settings
from mixbit.costs import policy_costs
from mixbit.entries import Layers, excluding
from mixbit.errors import MixbitError
from mixbit.experiment import Bits, Name
from mixbit.load import load_method
from mixbit.policy import Entry, dump_policy, load_policy
from policies.search import Search
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
    """The method's module, and those that its search needs."""
    searched = search_stage.modules(params.search) if params.search and reads_indicators(params.method) else ()
    return (f"{METHODS}.{params.method}", *searched)


def facts(params: Params) -> dict[str, str]:
    """The solver, where it is asked."""
    return {name: version(name) for name in search_stage.FACTS} if reads_indicators(params.method) else {}


def compute(work: Work, params: Params) -> dict[str, float]:
    """Make the policy and count what it costs."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    method = load_method(METHODS, params.method)
    policy: dict[str, Entry]
    if params.search is None:
        bits = params.weight_bits, params.activation_bits
        policy = method.uniform(layers, *bits, "none", excluding(params.excluded))
    else:
        compared = load_policy(work.inputs["policy"].read_bytes(), "policy.json")
        policy = method.choose(compared, layers, _search(work, layers, params.search, method.HARM))
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    totals = {name: float(value) for name, value in policy_costs(policy, layers).items()}
    return totals | search_stage.mean_bits_of(policy, layers)


def _search(work: Work, layers: Layers, params: search_stage.Params, harm: str | None) -> Search:
    """What the search could choose from, with the harm that the method reads."""
    if harm is None:
        return Search(params.num_bits, params.fixed_layers, params.layers)
    indicators = json.loads(work.inputs["indicators"].read_bytes())
    if harm not in indicators:
        what = f"the indicators of {indicators['method']} have no {harm} harm"
        raise MixbitError("baselines", what, hint="Leave this baseline out")
    return search_stage.timed_search(work, params, layers, indicators[harm])

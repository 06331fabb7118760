"""Stage `baseline`: layers (and a policy to compare with) -> policy.json without a search. CPU, instant."""

import json
from typing import Literal

from pydantic import Field, model_validator

from mixbit import costs
from mixbit.config import Settings
from mixbit.experiment import Bits, LayerRule, Name
from mixbit.load import load_method
from mixbit.policy import dump_policy, load_policy, mean_bits
from tasks.stage import Work

OUTPUTS = ("policy.json",)
METHODS = "policies.baselines"


class Params(Settings):
    """Either the bits, or the cost in which the baseline must not be below the policy that is its input.

    Attributes:
        method: a file of policies/baselines.
        weight_bits: of every searched layer.
        activation_bits: of every searched layer.
        at_least: the cost to compare by.
        num_bits: candidates for `at_least`.
        fixed_layers: profile of the layers that take no part.
        layers: rules by pattern; of these only `exclude` counts.
    """

    method: Name = "uniform"
    weight_bits: Bits | None = None
    activation_bits: Bits | None = None
    at_least: Literal["bitops", "size_bits", "file_bytes"] | None = None
    num_bits: tuple[Bits, ...] = ()
    fixed_layers: Literal["limpq", "none"] = "limpq"
    layers: dict[str, LayerRule] = Field(default={})

    @model_validator(mode="after")
    def _one_way(self) -> "Params":
        bits = self.weight_bits is not None and self.activation_bits is not None
        if bits == (self.at_least is not None and bool(self.num_bits)):
            raise ValueError("expected weight_bits and activation_bits, or at_least and num_bits")
        return self


def modules(params: Params) -> tuple[str, ...]:
    """The method's module."""
    return (f"{METHODS}.{params.method}",)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Make the policy and count what it costs."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    method = load_method(METHODS, params.method)
    if params.at_least is None:
        policy = method.uniform(layers, params.weight_bits, params.activation_bits, params.fixed_layers, params.layers)
    else:
        compared = load_policy(work.inputs["policy"].read_bytes(), "policy.json")
        settings = {"num_bits": params.num_bits, "profile": params.fixed_layers, "rules": params.layers}
        policy = method.uniform_at_least(layers, compared, params.at_least, **settings)
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    weight_bits, activation_bits = mean_bits(
        policy, {layer["name"]: layer["weights"] for layer in costs.run_layers(layers)}
    )
    totals = {name: float(value) for name, value in costs.policy_costs(policy, layers).items()}
    return totals | {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}

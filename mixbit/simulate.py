"""Simulated latencies: what models in `mixbit/simulated/` say that a policy takes; never what a device took.

A model gives each layer a time by its entry alone, so a policy's is the sum, and a search reads it as a plain cost.
Everywhere `layers` is the content of layers.json.
"""

from collections.abc import Mapping
from typing import Any

from mixbit.entries import Layers, Rules, run_layers, run_names, uniform_policy
from mixbit.latency import limit_us, simulated_of
from mixbit.limits import MODELS
from mixbit.load import load_method, method_names
from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY, Entry, Policy

# Times are told in whole nanoseconds.
DECIMALS = 3


def models() -> list[str]:
    """Names of the models."""
    return method_names(MODELS)


def modules(costs: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules of the models that these costs name."""
    return tuple(f"{MODELS}.{model}" for cost in sorted(costs) if (model := simulated_of(cost)) is not None)


def layer_us(model: str, layer: Mapping[str, Any], entry: Entry) -> float:
    """The time of one layer under one entry, in us.

    Raises:
        MisuseError: no such model.
    """
    us: float = load_method(MODELS, model).layer_us(layer, entry)
    return round(us, DECIMALS)


def policy_us(model: str, policy: Policy, layers: Layers) -> float:
    """The time of a policy, in us: the sum over its layers.

    Raises:
        MisuseError: no such model.
    """
    return round(sum(layer_us(model, layer, policy[layer["name"]]) for layer in run_layers(layers)), DECIMALS)


def resolve_limits(requested: Mapping[str, str], layers: Layers, rules: Rules) -> dict[str, float]:
    """Limits in us.

    Args:
        requested: `latency[simulated:MODEL]` -> limit as `mixbit.latency.is_limit` accepts it; a multiple is one of
            what the float or the W8A8 network takes in the same model.
        layers: content of layers.json.
        rules: per-layer rules, by pattern; excluded layers are float in W8A8 too.

    Raises:
        MisuseError: no such model; and as `mixbit.entries.candidates`.
    """
    references = {
        "float": dict.fromkeys(run_names(layers), FLOAT_ENTRY),
        "w8a8": uniform_policy(layers, INT8_ENTRY, "none", rules),
    }
    limits = {}
    for cost, limit in requested.items():
        reference_us = {name: policy_us(str(simulated_of(cost)), one, layers) for name, one in references.items()}
        limits[cost] = round(limit_us(limit, reference_us), DECIMALS)
    return limits

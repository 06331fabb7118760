"""Stage `policy`: layers + indicators -> policy.json, choice.json. CPU, seconds. With `file`, a given policy."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat

from mixbit.config import Settings, read_yaml
from mixbit.costs import policy_costs, resolve_limits
from mixbit.entries import Layers, candidates, check_groups, run_layers, run_names
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import Bits, LayerRule, Limit
from mixbit.faults import did_you_mean
from mixbit.policy import Entry, canonical_json, dump_policy, mean_bits, parse_policy, policy_sha256
from policies.ilp import Allocation, allocate
from policies.search import Search, harm_table
from policies.table import Ties
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("pulp", "highspy")


class Params(Settings):
    """The search; a given policy has an empty budget and no candidates.

    Attributes:
        budget: cost name -> limit, as requested.
        alpha: harm of an entry = activation harm + alpha * weight harm; `balanced`: see `policies.search.balance`.
        num_bits: candidates.
        fixed_layers: profile of the layers that take no part.
        groups: layers that share both bits.
        layers: rules by pattern.
        time_limit_s: when the solver gives its best so far.
    """

    budget: dict[Literal["bitops", "size_bits", "file_bytes"], Limit] = Field(default={})
    alpha: Literal["balanced"] | PositiveFloat = "balanced"
    num_bits: tuple[Bits, ...] = ()
    fixed_layers: Literal["limpq", "none"] = "limpq"
    groups: tuple[tuple[str, ...], ...] = ()
    layers: dict[str, LayerRule] = Field(default={})
    time_limit_s: float = Field(default=60.0, gt=0)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Search, or take what is given; write the policy and why it was chosen."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    check_groups(params.groups, layers)
    if "file" in work.inputs:
        policy = given_policy(work.inputs["file"], layers, params)
        choice: dict[str, Any] = {"status": "given", "file_sha256": work.digests["file"]}
    else:
        policy, choice = _searched(work, layers, params)
    figures = mean_bits_of(policy, layers)
    totals = policy_costs(policy, layers)
    choice |= {**figures, "costs": totals, "policy_sha256": policy_sha256(policy)}
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    evidence = {name: float(choice[name]) for name in ("harm", "gap") if name in choice}
    return {name: float(value) for name, value in totals.items()} | figures | evidence


def mean_bits_of(policy: Mapping[str, Entry], layers: Layers) -> dict[str, float]:
    """The two figures that say how many bits a policy takes."""
    weight_bits, activation_bits = mean_bits(policy, {layer["name"]: layer["weights"] for layer in run_layers(layers)})
    return {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}


def given_policy(file: Path, layers: Layers, params: Params) -> dict[str, Entry]:
    """A policy from the user's JSON or YAML, checked against the network.

    Raises:
        ConfigError: every layer that is missing, unknown or breaks a group.
        MisuseError: not a policy.
    """
    policy = parse_policy(_parsed(file), "policy file")
    names = run_names(layers)
    unknown = [
        MisuseError(f"policy file: {name}", "no such layer", hint=did_you_mean(name, names, "Layers"))
        for name in policy
        if name not in names
    ]
    missing = [
        MisuseError(f"policy file: {name}", "missing", hint="A policy names every layer")
        for name in names
        if name not in policy
    ]
    faults: list[MixbitError] = [*unknown, *missing]
    faults += _broken(policy, params.groups, "share bits, by groups", lambda entry: entry)
    faults += _broken(
        policy, layers["shared_activations"], "read one tensor, so they share activation bits", lambda entry: entry[1]
    )
    if faults:
        raise ConfigError(faults)
    return policy


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        pass
    try:
        return read_yaml(file)[0]
    except ConfigError as error:
        # The input is named by its digest; the user knows it by another name.
        faults = [MisuseError("", str(fault).replace(str(file), "policy file")) for fault in error.faults]
        raise ConfigError(faults) from None


def _broken(policy: Mapping[str, Entry], groups: Any, why: str, shared: Any) -> list[MixbitError]:
    faults: list[MixbitError] = []
    for group in groups:
        values = {str(shared(policy[name])) for name in group if name in policy}
        if len(values) > 1:
            got = ", ".join(f"{name} {shared(policy[name])}" for name in group if name in policy)
            faults.append(MisuseError(f"policy file: {group[0]}", f"{', '.join(group)} {why}", got=got))
    return faults


def _searched(work: Work, layers: Layers, params: Params) -> tuple[dict[str, Entry], dict[str, Any]]:
    content = work.inputs["indicators"].read_bytes()
    search = search_of(params, layers, json.loads(content)["layers"])
    work.progress(0, 1, f"{len(search.table)} layers, {sum(map(len, search.table.values()))} entries")
    found = allocate(search.table, search.limits, search.ties, search.time_limit_s)
    if not found.policy:
        raise no_policy(found, search.limits)
    choice = {
        "alpha": search.alpha,
        "budget": search.limits,
        "gap": found.gap,
        "harm": found.harm,
        "indicators_sha256": hashlib.sha256(content).hexdigest(),
        "lower_bound": found.lower_bound,
        "requested": params.budget,
        "solver": {name: importlib.metadata.version(name) for name in FACTS},
        "status": found.status,
    }
    return found.policy, choice


def search_of(params: Params, layers: Layers, indicators: Mapping[str, Any] | None = None) -> Search:
    """What the parameters ask of the network.

    Args:
        params: of a search.
        layers: content of layers.json.
        indicators: layer -> harm, a table of indicators.json; None where costs alone matter.

    Raises:
        MisuseError: as `limits_of` and `mixbit.entries.candidates`.
        MixbitError: harm of a candidate is missing from the indicators.
    """
    limits = limits_of(params, layers)
    entries = candidates(layers, params.num_bits, params.fixed_layers, params.layers)
    table, alpha = harm_table(layers, entries, indicators, params.alpha)
    return Search(
        num_bits=params.num_bits,
        profile=params.fixed_layers,
        rules=params.layers,
        table=table,
        alpha=alpha,
        limits=limits,
        ties=Ties(both=params.groups, activation=layers["shared_activations"]),
        time_limit_s=params.time_limit_s,
    )


def limits_of(params: Params, layers: Layers) -> dict[str, int]:
    """The budget in whole numbers.

    Raises:
        MisuseError: as `mixbit.costs.resolve_limits`.
    """
    requested = {str(name): limit for name, limit in params.budget.items()}
    return resolve_limits(requested, layers, params.fixed_layers, params.layers)


def no_policy(found: Allocation, limits: Mapping[str, int]) -> MixbitError:
    """The error of a search without a policy, with the smallest budget that works."""
    if found.status == "undecided":
        return MixbitError(
            "budget", "no policy found in time, and no proof that there is none", hint="Raise allocation.time_limit_s"
        )
    smallest = found.smallest_feasible
    asked = ", ".join(f"{name} {limits[name]}" for name in limits)
    others = " with the other limits kept" if len(limits) > 1 else ""
    least = ", ".join(f"{name} {value}" for name, value in smallest.items())
    return MixbitError("budget", f"no policy fits ({asked})", hint=f"Smallest feasible{others}: {least}")

"""Stage `policy`: layers + indicators -> policy.json, choice.json. CPU, seconds. With `file`, a given policy."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mixbit import costs
from mixbit.config import Settings, read_yaml
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import Bits, LayerRule, Limit
from mixbit.faults import did_you_mean
from mixbit.policy import Entry, NumBits, canonical_json, dump_policy, mean_bits, parse_policy, policy_sha256
from policies.ilp import Allocation, allocate
from policies.table import Candidate, Number, Ties
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("pulp", "highspy")


class Params(Settings):
    """The search; a given policy has an empty budget and no candidates.

    Attributes:
        budget: cost name -> limit, as requested.
        alpha: harm of an entry = activation harm + alpha * weight harm.
        num_bits: candidates.
        fixed_layers: profile of the layers that take no part.
        groups: layers that share both bits.
        layers: rules by pattern.
        time_limit_s: when the solver gives its best so far.
    """

    budget: dict[Literal["bitops", "size_bits", "file_bytes"], Limit] = Field(default={})
    alpha: float = Field(default=1.0, gt=0)
    num_bits: tuple[Bits, ...] = ()
    fixed_layers: Literal["limpq", "none"] = "limpq"
    groups: tuple[tuple[str, ...], ...] = ()
    layers: dict[str, LayerRule] = Field(default={})
    time_limit_s: float = Field(default=60.0, gt=0)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Search, or take what is given; write the policy and why it was chosen."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    costs.check_groups(params.groups, layers)
    if "file" in work.inputs:
        policy = given_policy(work.inputs["file"], layers, params)
        choice: dict[str, Any] = {"status": "given", "file_sha256": work.digests["file"]}
    else:
        policy, choice = _searched(work, layers, params)
    weights = {layer["name"]: layer["weights"] for layer in costs.run_layers(layers)}
    weight_bits, activation_bits = mean_bits(policy, weights)
    figures = {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}
    totals = costs.policy_costs(policy, layers)
    choice |= {**figures, "costs": totals, "policy_sha256": policy_sha256(policy)}
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    evidence = {name: float(choice[name]) for name in ("harm", "gap") if name in choice}
    return {name: float(value) for name, value in totals.items()} | figures | evidence


def given_policy(file: Path, layers: costs.Layers, params: Params) -> dict[str, Entry]:
    """A policy from the user's JSON or YAML, checked against the network.

    Raises:
        ConfigError: every layer that is missing, unknown or breaks a group.
        MisuseError: not a policy.
    """
    policy = parse_policy(_parsed(file), "policy file")
    names = [layer["name"] for layer in costs.run_layers(layers)]
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


def _searched(work: Work, layers: costs.Layers, params: Params) -> tuple[dict[str, Entry], dict[str, Any]]:
    indicators = json.loads(work.inputs["indicators"].read_bytes())
    requested = {str(name): limit for name, limit in params.budget.items()}
    limits = costs.resolve_limits(requested, layers, params.fixed_layers, params.layers)
    entries = costs.candidates(layers, params.num_bits, params.fixed_layers, params.layers)
    table = harm_table(layers, entries, indicators["layers"], params.alpha)
    ties = Ties(both=params.groups, activation=layers["shared_activations"])
    work.progress(0, 1, f"{len(table)} layers, {sum(map(len, table.values()))} entries")
    found = allocate(table, limits, ties, params.time_limit_s)
    if not found.policy:
        raise no_policy(found, limits)
    choice = {
        "alpha": params.alpha,
        "budget": limits,
        "gap": found.gap,
        "harm": found.harm,
        "indicators_sha256": hashlib.sha256(work.inputs["indicators"].read_bytes()).hexdigest(),
        "lower_bound": found.lower_bound,
        "requested": requested,
        "solver": {name: importlib.metadata.version(name) for name in FACTS},
        "status": found.status,
    }
    return found.policy, choice


def harm_table(
    layers: costs.Layers, entries: Mapping[str, tuple[Entry, ...]], indicators: Mapping[str, Any], alpha: float
) -> dict[str, dict[Entry, Candidate]]:
    """What the allocation reads: layer -> entry -> (harm, costs); harm = activation harm + alpha * weight harm.

    Activation harm of a tensor with k readers comes as 1/k each. Bits that a layer has no choice about have no harm
    here.

    Raises:
        MixbitError: harm of a candidate is missing from the indicators.
    """
    table: dict[str, dict[Entry, Candidate]] = {}
    for layer in costs.run_layers(layers):
        name = layer["name"]
        weight = _harm_of(name, "weight", {w for w, _ in entries[name]}, indicators)
        activation = _harm_of(name, "activation", {a for _, a in entries[name]}, indicators)
        table[name] = {
            (w, a): (activation[a] + alpha * weight[w], dict[str, Number](costs.layer_costs(layer, (w, a))))
            for w, a in entries[name]
        }
    return table


def _harm_of(name: str, kind: str, bits: set[NumBits], indicators: Mapping[str, Any]) -> dict[NumBits, float]:
    if len(bits) == 1:
        return dict.fromkeys(bits, 0.0)
    rows = indicators.get(name, {}).get(kind, {})
    for each in bits:
        if str(each) not in rows:
            hint = "Indicators must cover every candidate num_bits"
            raise MixbitError(
                f"indicators: {name}", f"no harm of {kind} bits", expected=each, got=list(rows), hint=hint
            )
    return {each: rows[str(each)] for each in bits}


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

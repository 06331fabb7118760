"""Stage `policy`: layers + indicators -> policy.json, choice.json. CPU, seconds. With `file`, a given policy.

A budget of latency is searched by the device's table, which is off by some percent. So there are several candidates:
the best policy under that limit, under a little more and a little less of it, and the fastest one. The device decides.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mixbit import costs
from mixbit.config import Settings, read_yaml
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import COSTS, Bits, LayerRule, LimitsByCost
from mixbit.faults import did_you_mean
from mixbit.latency import FLOAT, INT8, Table, cost_name, device_of, executed
from mixbit.policy import Entry, Policy, canonical_json, dump_policy, mean_bits, parse_policy, policy_sha256
from policies.ilp import Allocation
from policies.search import Search, harm_table, search_of
from policies.table import Number, Ties
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("pulp", "highspy")
TABLE = "latency_table."


class Params(Settings):
    """The search; a given policy has an empty budget and no candidates.

    Attributes:
        budget: cost name -> limit, as requested; a device's latency needs the input `latency_table.<device>`.
        alpha: harm of an entry = activation harm + alpha * weight harm.
        num_bits: candidates.
        fixed_layers: profile of the layers that take no part.
        groups: layers that share both bits.
        layers: rules by pattern.
        time_limit_s: when the solver gives its best so far.
    """

    budget: LimitsByCost = Field(default={})
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
        choice |= described(policy, layers)
    else:
        policy, choice = _searched(work, layers, params)
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    return figures(choice)


def described(policy: Policy, layers: costs.Layers) -> dict[str, Any]:
    """What choice.json says of a policy, whoever chose it."""
    weights = {layer["name"]: layer["weights"] for layer in costs.run_layers(layers)}
    weight_bits, activation_bits = mean_bits(policy, weights)
    means = {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}
    return {**means, "costs": costs.policy_costs(policy, layers), "policy_sha256": policy_sha256(policy)}


def figures(choice: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a policy, from its choice.json; of latency what the table predicts."""
    told = {name: choice["costs"][name] for name in COSTS}
    told |= {
        name: choice[name] for name in ("mean_weight_bits", "mean_activation_bits", "harm", "gap") if name in choice
    }
    told |= {f"predicted_us.{device}": us for device, us in choice.get("predicted_us", {}).items()}
    return {name: float(value) for name, value in told.items()}


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


def search_for(work: Work, layers: costs.Layers, params: Params, harms: Mapping[str, Any]) -> Search:
    """The search that parameters and inputs describe.

    Args:
        work: with the input `latency_table.<device>` for each device in the budget.
        layers: content of layers.json.
        params: candidates, budget, ties.
        harms: layer -> kind -> num_bits -> harm.

    Raises:
        MixbitError: harm of a candidate is missing from the indicators.
        MisuseError: as `costs.resolve_limits` and `costs.candidates`.
    """
    devices = [device for name in params.budget if (device := device_of(name)) is not None]
    tables = {
        device: Table.from_json(json.loads(work.inputs[f"{TABLE}{device}"].read_bytes())) for device in sorted(devices)
    }
    entries = costs.candidates(layers, params.num_bits, params.fixed_layers, params.layers)
    plain = {name: limit for name, limit in params.budget.items() if name in COSTS}
    timed = {name: str(limit) for name, limit in params.budget.items() if name not in COSTS}
    return search_of(
        harm_table(layers, entries, harms, params.alpha),
        {**costs.resolve_limits(plain, layers, params.fixed_layers, params.layers)},
        timed,
        tables=tables,
        ties=Ties(both=params.groups, activation=layers["shared_activations"]),
        time_limit_s=params.time_limit_s,
    )


def _searched(work: Work, layers: costs.Layers, params: Params) -> tuple[dict[str, Entry], dict[str, Any]]:
    indicators = json.loads(work.inputs["indicators"].read_bytes())
    search = search_for(work, layers, params, indicators["layers"])
    work.progress(0, 1, f"{len(search.table)} layers, {sum(map(len, search.table.values()))} entries")
    common = {
        "alpha": params.alpha,
        "budget": search.whole,
        "indicators_sha256": hashlib.sha256(work.inputs["indicators"].read_bytes()).hexdigest(),
        "requested": {str(name): limit for name, limit in params.budget.items()},
        "solver": {name: importlib.metadata.version(name) for name in FACTS},
    }
    found = search.best()
    if not search.tables:
        if not found.policy:
            raise no_policy(found, search.limits)
        return found.policy, common | _evidence(found, layers, search)
    candidates = list(_candidates(found, search))
    if not candidates:
        raise no_policy(search.fastest(min(search.tables)), {n: search.limits[n] for n in COSTS if n in search.limits})
    told = [{"kind": kind, **_evidence(one, layers, search), "policy": _plain(one.policy)} for kind, one in candidates]
    at = next((place for place, (kind, _) in enumerate(candidates) if kind == "best"), 0)
    chosen = {name: value for name, value in told[at].items() if name not in {"kind", "policy"}}
    return candidates[at][1].policy, common | chosen | {"candidates": told}


def _candidates(best: Allocation, search: Search) -> Iterator[tuple[str, Allocation]]:
    """(why, policy); policies that execute alike take alike, so the first of them is enough."""
    seen: set[tuple[str, ...]] = set()
    near = [("a little slower", search.stretched(1).best()), ("a little faster", search.stretched(-1).best())]
    fastest = [("fastest", search.fastest(device)) for device in sorted(search.tables)]
    for kind, found in [("best", best), *near, *fastest]:
        vector = tuple(executed(entry) for _, entry in sorted(found.policy.items()))
        if found.policy and vector not in seen:
            seen.add(vector)
            yield kind, found


def _evidence(found: Allocation, layers: costs.Layers, search: Search) -> dict[str, Any]:
    """What choice.json says of an allocation."""
    told = {name: getattr(found, name) for name in ("gap", "harm", "lower_bound", "status")}
    told |= described(found.policy, layers)
    if search.tables:
        predicted = {device: round(table.predict_us(found.policy), 3) for device, table in search.tables.items()}
        told["predicted_us"] = predicted
        told["costs"] |= {cost_name(device): us for device, us in predicted.items()}
        kinds = [executed(entry) for entry in found.policy.values()]
        told["executed"] = {kind: kinds.count(kind) for kind in (FLOAT, INT8)}
    return told


def _plain(policy: Policy) -> Any:
    return json.loads(dump_policy(policy))


def no_policy(found: Allocation, limits: Mapping[str, Number]) -> MixbitError:
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

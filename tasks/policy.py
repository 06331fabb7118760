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

from pydantic import Field, PositiveFloat

from mixbit import simulate
from mixbit.activation_memory import is_row, least_peak
from mixbit.config import Settings, read_yaml
from mixbit.costs import policy_costs, resolve_limits
from mixbit.entries import Layers, candidates, check_groups, run_layers, run_names
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import Bits, LayerRule
from mixbit.faults import did_you_mean
from mixbit.latency import FLOAT, INT8, Table, cost_name, device_of, executed, simulated_of
from mixbit.limits import COUNTED, PEAK, LimitsByCost
from mixbit.policy import Entry, Policy, canonical_json, dump_policy, mean_bits, parse_policy, policy_sha256
from policies.ilp import Allocation
from policies.peak import least_peak_of, with_peak
from policies.search import Search, harm_table, least_of_each
from policies.table import Number, Ties
from policies.timed import TimedSearch, with_latencies
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("pulp", "highspy")
TABLE = "latency_table."


class Params(Settings):
    """The search; a given policy has an empty budget and no candidates.

    Attributes:
        budget: cost name -> limit, as requested; a device's latency needs the input `latency_table.<device>`, that of
            a simulated model nothing.
        alpha: harm of an entry = activation harm + alpha * weight harm; `balanced`: see `policies.search.balance`.
        num_bits: candidates.
        fixed_layers: profile of the layers that take no part.
        groups: layers that share both bits.
        layers: rules by pattern.
        time_limit_s: when the solver gives its best so far.
    """

    budget: LimitsByCost = Field(default={})
    alpha: Literal["balanced"] | PositiveFloat = "balanced"
    num_bits: tuple[Bits, ...] = ()
    fixed_layers: Literal["limpq", "none"] = "limpq"
    groups: tuple[tuple[str, ...], ...] = ()
    layers: dict[str, LayerRule] = Field(default={})
    time_limit_s: float = Field(default=60.0, gt=0)


def modules(params: Params) -> tuple[str, ...]:
    """Those of the simulated models in the budget."""
    return simulate.modules(params.budget)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Search, or take what is given; write the policy and why it was chosen."""
    layers = json.loads(work.inputs["layers"].read_bytes())
    check_groups(params.groups, layers)
    if "file" in work.inputs:
        policy = given_policy(work.inputs["file"], layers, params)
        choice: dict[str, Any] = {"status": "given", "file_sha256": work.digests["file"]}
        choice |= described(policy, layers)
    else:
        policy, choice = _searched(work, layers, params)
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    return figures(choice)


def mean_bits_of(policy: Mapping[str, Entry], layers: Layers) -> dict[str, float]:
    """The two figures that say how many bits a policy takes."""
    weight_bits, activation_bits = mean_bits(policy, {layer["name"]: layer["weights"] for layer in run_layers(layers)})
    return {"mean_weight_bits": weight_bits, "mean_activation_bits": activation_bits}


def described(policy: Policy, layers: Layers) -> dict[str, Any]:
    """What choice.json says of a policy, whoever chose it."""
    costs = policy_costs(policy, layers)
    return {**mean_bits_of(policy, layers), "costs": costs, "policy_sha256": policy_sha256(policy)}


def figures(choice: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a policy, from its choice.json; of latency what tables predict, and what models say."""
    told = {name: choice["costs"][name] for name in COUNTED if name in choice["costs"]}
    named = ("mean_weight_bits", "mean_activation_bits", "harm", "alpha", "gap")
    told |= {name: choice[name] for name in named if name in choice}
    told |= {f"predicted_us.{device}": us for device, us in choice.get("predicted_us", {}).items()}
    told |= {f"simulated_us.{model}": us for cost, us in choice["costs"].items() if (model := simulated_of(cost))}
    return {name: float(value) for name, value in told.items()}


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
    search = timed_search(work, params, layers, json.loads(content)["layers"])
    work.progress(0, 1, f"{len(search.table)} layers, {sum(map(len, search.table.values()))} entries")
    common = {
        "alpha": search.alpha,
        "budget": {**limits_of(params, layers), **{n: v for n, v in search.whole.items() if device_of(n)}},
        "indicators_sha256": hashlib.sha256(content).hexdigest(),
        "requested": params.budget,
        "solver": {name: importlib.metadata.version(name) for name in FACTS},
    }
    found = search.best()
    if not search.tables:
        if not found.policy:
            raise no_policy(found, search, limits_of(params, layers))
        return found.policy, common | _evidence(found, layers, search)
    candidates = list(_candidates(found, search))
    if not candidates:
        raise no_policy(search.fastest(min(search.tables)), search, limits_of(params, layers))
    told = [{"kind": kind, **_evidence(one, layers, search), "policy": _plain(one.policy)} for kind, one in candidates]
    at = next((place for place, (kind, _) in enumerate(candidates) if kind == "best"), 0)
    chosen = {name: value for name, value in told[at].items() if name not in {"kind", "policy"}}
    return candidates[at][1].policy, common | chosen | {"candidates": told}


def _candidates(best: Allocation, search: TimedSearch) -> Iterator[tuple[str, Allocation]]:
    """(why, policy); policies that execute alike take alike, so the first of them is enough."""
    seen: set[tuple[str, ...]] = set()
    near = [("a little slower", search.stretched(1).best()), ("a little faster", search.stretched(-1).best())]
    fastest = [("fastest", search.fastest(device)) for device in sorted(search.tables)]
    for kind, found in [("best", best), *near, *fastest]:
        vector = tuple(executed(entry) for _, entry in sorted(found.policy.items()))
        if found.policy and vector not in seen:
            seen.add(vector)
            yield kind, found


def _evidence(found: Allocation, layers: Layers, search: TimedSearch) -> dict[str, Any]:
    """What choice.json says of an allocation."""
    told = {name: getattr(found, name) for name in ("gap", "harm", "lower_bound", "status")}
    told |= described(found.policy, layers)
    models = {name: model for name in search.whole if (model := simulated_of(name)) is not None}
    told["costs"] |= {name: simulate.policy_us(model, found.policy, layers) for name, model in models.items()}
    if search.tables:
        predicted = {device: round(table.predict_us(found.policy), 3) for device, table in search.tables.items()}
        told["predicted_us"] = predicted
        told["costs"] |= {cost_name(device): us for device, us in predicted.items()}
        kinds = [executed(entry) for entry in found.policy.values()]
        told["executed"] = {kind: kinds.count(kind) for kind in (FLOAT, INT8)}
    return told


def _plain(policy: Policy) -> Any:
    return json.loads(dump_policy(policy))


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
    simulated = [cost for cost in params.budget if simulated_of(cost) is not None]
    table, alpha = harm_table(layers, entries, indicators, params.alpha, simulated)
    if PEAK in limits:
        table, limits = with_peak(table, limits, layers, entries)
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


def timed_search(work: Work, params: Params, layers: Layers, indicators: Mapping[str, Any]) -> TimedSearch:
    """As `search_of`, with the latencies in the budget by the inputs `latency_table.<device>`."""
    timed = {name: str(limit) for name, limit in params.budget.items() if device_of(name) is not None}
    devices = sorted(str(device_of(name)) for name in timed)
    tables = {name: Table.from_json(json.loads(work.inputs[f"{TABLE}{name}"].read_bytes())) for name in devices}
    return with_latencies(search_of(params, layers, indicators), timed, tables)


def limits_of(params: Params, layers: Layers) -> dict[str, Number]:
    """The budget in numbers, without latencies of devices: these only a device's table tells.

    Raises:
        MisuseError: as `mixbit.costs.resolve_limits`.
    """
    counted = {name: limit for name, limit in params.budget.items() if name in COUNTED}
    simulated = {name: str(limit) for name, limit in params.budget.items() if simulated_of(name) is not None}
    limits: dict[str, Number] = {**resolve_limits(counted, layers, params.fixed_layers, params.layers)}
    return limits | simulate.resolve_limits(simulated, layers, params.layers)


def least_costs(search: Search, layers: Layers) -> dict[str, int | float]:
    """The least of each cost alone, over all policies; of the peak no more than that.

    Raises:
        MisuseError: as `policies.search.least_of_each`.
        MixbitError: likewise.
    """
    return least_of_each(search) | {PEAK: least_peak(layers, {name: tuple(row) for name, row in search.table.items()})}


def no_policy(found: Allocation, search: Search, limits: Mapping[str, Number]) -> MixbitError:
    """The error of a search without a policy, with the smallest budget that works."""
    if found.status == "undecided":
        return MixbitError(
            "budget", "no policy found in time, and no proof that there is none", hint="Raise allocation.time_limit_s"
        )
    smallest = {name: value for name, value in found.smallest_feasible.items() if not is_row(name)}
    if PEAK in limits:
        smallest[PEAK] = least_peak_of(search)
    asked = ", ".join(f"{name} {limits[name]}" for name in limits)
    others = " with the other limits kept" if len(limits) > 1 else ""
    least = ", ".join(f"{name} {value}" for name, value in smallest.items())
    return MixbitError("budget", f"no policy fits ({asked})", hint=f"Smallest feasible{others}: {least}")

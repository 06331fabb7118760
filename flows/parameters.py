"""From what a user declared to the parameters of each stage; a field that no result depends on goes to none."""

from dataclasses import dataclass
from typing import Any

from flows.declaration import Declared
from flows.sources import dataset_source
from mixbit.devices.device import FLOAT, W8A8
from mixbit.experiment import Proxy, Smallest, Target
from mixbit.latency import device_of
from mixbit.policy import MAX_BITS, MIN_BITS
from tasks import (
    baseline,
    dataset,
    deployable,
    float_model,
    indicators,
    latency_table,
    layers,
    measured_policy,
    policy,
    profile,
    proxy,
    searched_policy,
)
from tasks.finetuned_model import Params as FinetuneParams


@dataclass(frozen=True)
class Parameters:
    """Parameters by stage; `search` gets a budget.

    `policies`, `smallest` and `measured_policies` are by budget, `profiles` and `latency_tables` by device; the latter
    two only where budgets name latencies.
    """

    dataset: dataset.Params
    layers: layers.Params
    proxy: proxy.Params
    float_model: float_model.Params
    indicators: indicators.Params | None
    direct: searched_policy.Params | None
    search: policy.Params
    policies: dict[str, policy.Params]
    smallest: dict[str, Smallest]
    latency_tables: dict[str, latency_table.Params]
    measured_policies: dict[str, measured_policy.Params]
    references: dict[str, baseline.Params]
    finetuned_model: FinetuneParams
    untuned: FinetuneParams
    deployable: deployable.Params
    profiles: dict[str, profile.Params]
    warm_start: bool


def parameters(declared: Declared) -> Parameters:
    """The parameters of every stage of one experiment."""
    e = declared.experiment
    model = {"factory": e.model.factory, "arguments": e.model.arguments}
    judged = {**model, "task": e.task, "threads": e.threads}
    seeded = {**judged, "seed": e.seed}
    tuned, search = e.finetune, _search(declared)
    policies = _policies(declared, search)
    timed = {name: limits for name, one in policies.items() if (limits := _timed(one))}
    measuring = {**model, "threads": e.threads, "excluded": _excluded(declared)}
    return Parameters(
        dataset=dataset.Params(**dataset_source(declared).dataset_params()),
        layers=layers.Params(**model),
        proxy=proxy.Params(**(e.proxy.model_dump() if isinstance(e.proxy, Proxy) else {"name": e.proxy})),
        float_model=float_model.Params(**seeded, train=e.model.train),
        indicators=_indicators(declared, seeded),
        direct=_direct(declared, seeded, search),
        search=search,
        policies=policies,
        smallest={name: budget.smallest for name, budget in e.budgets.items() if isinstance(budget, Target)},
        latency_tables={
            device: latency_table.Params(**measuring, device=device)
            for device in sorted({str(device_of(cost)) for limits in timed.values() for cost in limits})
        },
        measured_policies={name: measured_policy.Params(**measuring, budget=limits) for name, limits in timed.items()},
        references=_references(declared),
        finetuned_model=FinetuneParams(**seeded, finetune=tuned),
        untuned=FinetuneParams(**seeded, finetune="none"),
        deployable=deployable.Params(**judged),
        profiles={device: profile.Params(device=device, threads=e.threads) for device in e.devices},
        warm_start="indicators.file" not in declared.files and (tuned == "none" or tuned.start == "supernet"),
    )


def _indicators(declared: Declared, seeded: dict[str, Any]) -> indicators.Params | None:
    e = declared.experiment
    if e.indicators is None or e.policy is not None:
        return None
    if e.indicators.file is not None:
        given = {"method": indicators.GIVEN, "num_bits": e.indicators.num_bits}
        return indicators.Params(**given, fixed_layers=e.fixed_layers, excluded=_excluded(declared))
    method = {
        "method": e.indicators.method,
        "num_bits": e.indicators.num_bits,
        "settings": e.indicators.settings if declared.settings is None else declared.settings.model_dump(),
    }
    return indicators.Params(**seeded, **method, fixed_layers=e.fixed_layers, excluded=_excluded(declared))


def _excluded(declared: Declared) -> tuple[str, ...]:
    return tuple(sorted(pattern for pattern, rule in declared.experiment.layers.items() if rule.exclude))


def _search(declared: Declared) -> policy.Params:
    """What all searches share; all there is for a given policy."""
    e = declared.experiment
    rules = policy.Params(fixed_layers=e.fixed_layers, groups=e.groups, layers=e.layers)
    if e.policy is not None or e.num_bits is None:
        return rules
    asked = {"num_bits": e.num_bits, "time_limit_s": e.allocation.time_limit_s}
    weighed = {"alpha": e.allocation.alpha} if e.indicators else {}
    return rules.model_copy(update=asked | weighed)


def _direct(declared: Declared, seeded: dict[str, Any], search: policy.Params) -> searched_policy.Params | None:
    """A search without indicators, its budget still open."""
    e = declared.experiment
    if e.search is None or e.policy is not None:
        return None
    asked = {"method": e.search.method, "settings": declared.settings.model_dump()}
    return searched_policy.Params(**seeded, **asked, search=search)


def _policies(declared: Declared, search: policy.Params) -> dict[str, policy.Params]:
    """One search per budget of limits; a given policy is called as its file."""
    e = declared.experiment
    if e.policy is not None:
        return {declared.files["policy"].stem: search}
    limits = {name: budget for name, budget in e.budgets.items() if not isinstance(budget, Target)}
    return {name: search.model_copy(update={"budget": budget}) for name, budget in limits.items()}


def _timed(search: policy.Params) -> dict[str, Any]:
    """The limits of a search that only a device can tell."""
    return {cost: limit for cost, limit in search.budget.items() if device_of(cost) is not None}


def _references(declared: Declared) -> dict[str, baseline.Params]:
    """Without excluded layers, which may be such that no int8 kernel computes them."""
    return {
        FLOAT: baseline.Params(weight_bits="float", activation_bits="float"),
        W8A8: baseline.Params(weight_bits=8, activation_bits=8, excluded=_excluded(declared)),
    }


def baselines(declared: Declared, search: policy.Params) -> dict[str, baseline.Params]:
    """Baselines of one search. Those that read no indicators are told the candidates only: nothing else matters."""
    e = declared.experiment
    candidates = e.num_bits or tuple(range(MIN_BITS, MAX_BITS + 1))
    plain = policy.Params(num_bits=candidates, fixed_layers=e.fixed_layers, layers=e.layers)
    return {
        name: baseline.Params(method=name, search=search if baseline.reads_indicators(name) else plain)
        for name in e.baselines
    }

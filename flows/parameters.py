"""From what a user declared to the parameters of each stage; a field that no result depends on goes to none."""

from dataclasses import dataclass
from typing import Any

from flows.declaration import Declared
from flows.sources import dataset_source
from mixbit.experiment import Proxy
from mixbit.policy import MAX_BITS, MIN_BITS
from tasks import (
    baseline,
    dataset,
    deployable,
    float_model,
    indicators,
    layers,
    policy,
    profile,
    proxy,
)
from tasks.finetuned_model import Params as FinetuneParams


@dataclass(frozen=True)
class Parameters:
    """Parameters by stage; `policies` by budget, `baselines` by budget and file name, `profiles` by device."""

    dataset: dataset.Params
    layers: layers.Params
    proxy: proxy.Params
    float_model: float_model.Params
    indicators: indicators.Params | None
    policies: dict[str, policy.Params]
    references: dict[str, baseline.Params]
    baselines: dict[str, dict[str, baseline.Params]]
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
    tuned, policies = e.finetune, _policies(declared)
    return Parameters(
        dataset=dataset.Params(**dataset_source(declared).dataset_params()),
        layers=layers.Params(**model),
        proxy=proxy.Params(**(e.proxy.model_dump() if isinstance(e.proxy, Proxy) else {"name": e.proxy})),
        float_model=float_model.Params(**seeded, train=e.model.train),
        indicators=_indicators(declared, seeded),
        policies=policies,
        references=_references(declared),
        baselines={name: _baselines(declared, search) for name, search in policies.items()},
        finetuned_model=FinetuneParams(**seeded, finetune=tuned),
        untuned=FinetuneParams(**seeded, finetune="none"),
        deployable=deployable.Params(**judged),
        profiles={device: profile.Params(device=device, threads=e.threads) for device in e.devices},
        warm_start=tuned == "none" or tuned.start == "supernet",
    )


def _indicators(declared: Declared, seeded: dict[str, Any]) -> indicators.Params | None:
    e = declared.experiment
    if e.indicators is None or e.policy is not None:
        return None
    method = {
        "method": e.indicators.method,
        "num_bits": e.indicators.num_bits,
        "settings": declared.settings.model_dump(),
    }
    return indicators.Params(**seeded, **method, fixed_layers=e.fixed_layers, excluded=_excluded(declared))


def _excluded(declared: Declared) -> tuple[str, ...]:
    return tuple(sorted(pattern for pattern, rule in declared.experiment.layers.items() if rule.exclude))


def _policies(declared: Declared) -> dict[str, policy.Params]:
    """One search per budget; a given policy is called as its file."""
    e = declared.experiment
    if e.policy is not None:
        given = policy.Params(fixed_layers=e.fixed_layers, groups=e.groups, layers=e.layers)
        return {declared.files["policy"].stem: given}
    assert e.indicators is not None
    shared = policy.Params(
        alpha=e.allocation.alpha,
        num_bits=e.indicators.num_bits,
        fixed_layers=e.fixed_layers,
        groups=e.groups,
        layers=e.layers,
        time_limit_s=e.allocation.time_limit_s,
    )
    return {name: shared.model_copy(update={"budget": budget}) for name, budget in e.budgets.items()}


def _references(declared: Declared) -> dict[str, baseline.Params]:
    """Without excluded layers, which may be such that no int8 kernel computes them."""
    return {
        "float": baseline.Params(weight_bits="float", activation_bits="float"),
        "w8a8": baseline.Params(weight_bits=8, activation_bits=8, excluded=_excluded(declared)),
    }


def _baselines(declared: Declared, search: policy.Params) -> dict[str, baseline.Params]:
    """Those that read no indicators are told the candidates only: nothing else of the search changes them."""
    e = declared.experiment
    candidates = e.indicators.num_bits if e.indicators else tuple(range(MIN_BITS, MAX_BITS + 1))
    plain = policy.Params(num_bits=candidates, fixed_layers=e.fixed_layers, layers=e.layers)
    return {
        name: baseline.Params(method=name, search=search if baseline.reads_indicators(name) else plain)
        for name in e.baselines
    }

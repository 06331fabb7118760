"""What a file says of layers, held against the network: told right after `layers`, before anything is trained."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flows.declaration import Declared
from flows.parameters import Parameters
from mixbit import costs
from mixbit.config import in_order
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import COSTS, Target
from mixbit.marked_yaml import Location
from mixbit.policy import Entry
from policies.bound import least_costs
from policies.table import Candidate, Number, Ties, exact_problem
from tasks import policy

Entries = Mapping[str, tuple[Entry, ...]]
OWN_WORDS = r"(policy file|layers|groups\[\d+\]|groups|fixed_layers|budgets: \w+|budgets)"  # the file's line says it


def refuse_misfits(declared: Declared, p: Parameters, layers: costs.Layers) -> None:
    """Whether groups, rules, budgets and a given policy fit the network.

    Args:
        declared: the experiment.
        p: the parameters of its stages.
        layers: content of layers.json.

    Raises:
        ConfigError: all that does not, with lines.
    """
    if faults := list(_misfits(declared, p, layers)):
        raise ConfigError(in_order(faults))


def _misfits(declared: Declared, p: Parameters, layers: costs.Layers) -> Iterator[MixbitError]:
    e = declared.experiment
    told = [_told(declared, ("groups", at), costs.check_groups, [group], layers) for at, group in enumerate(e.groups)]
    told.append(_told(declared, ("layers",), costs.fixed_entries, layers, e.fixed_layers, e.layers))
    if e.policy is not None and not any(told):
        given = next(iter(p.policies.values()))
        told.append(_told(declared, ("policy",), policy.given_policy, declared.files["policy"], layers, given))
    if e.indicators is not None and e.policy is None and not any(told):
        asked = (layers, e.indicators.num_bits, e.fixed_layers, e.layers)
        told.append(_told(declared, ("layers",), costs.candidates, *asked))
        told.append(_told(declared, ("layers",), _something_is_left, layers, e.fixed_layers, e.layers))
        if not any(told):
            ties, least = Ties(both=e.groups, activation=layers["shared_activations"]), dict[str, int]()
            entries = costs.candidates(*asked)
            told.append(_told(declared, ("groups",), lambda: least.update(least_of_each(entries, layers, ties))))
            told.append(list(_unaffordable(declared, layers, least)) if least else [])
    yield from (fault for faults in told for fault in faults)


def _something_is_left(layers: costs.Layers, *by: Any) -> None:
    if len(costs.fixed_entries(layers, *by)) == len(costs.run_layers(layers)):
        hint = "Exclude fewer layers, or set fixed_layers: none"
        raise MisuseError("layers", "no layer is left to search", hint=hint)


def _told(declared: Declared, at: Location, check: Callable[..., object], *arguments: Any) -> list[MixbitError]:
    """The faults that `check` raises, with the line of the key they are about."""
    try:
        check(*arguments)
    except ConfigError as error:
        return [_at(declared, at, fault) for fault in error.faults]
    except MixbitError as error:
        return [_at(declared, at, error)]
    return []


def _at(declared: Declared, at: Location, fault: MixbitError) -> MisuseError:
    """The fault where the file says it; a rule is called by its pattern, anything else within `at` by its words."""
    inner = re.sub(f"^{OWN_WORDS}(: )?", "", fault.where)
    if (*at, inner) in declared.marks.lines:
        at, inner = (*at, inner), ""
    what = f"{inner}: {fault.what}".strip(": ")
    return declared.marks.fault(at, what, expected=fault.expected, got=fault.got, hint=fault.hint)


def _unaffordable(declared: Declared, layers: costs.Layers, least: Mapping[str, int]) -> Iterator[MixbitError]:
    """Budgets below the least that any policy costs; what several limits allow together, only the solver can tell."""
    e = declared.experiment
    for name, budget in e.budgets.items():
        if isinstance(budget, Target):
            continue
        requested = {cost: value for cost, value in budget.items() if cost in COSTS}
        for cost, limit in costs.resolve_limits(requested, layers, e.fixed_layers, e.layers).items():
            if limit < least[cost]:
                got = requested[cost] if requested[cost] == limit else f"{requested[cost]} = {limit}"
                hint = f"Smallest feasible: {cost} {least[cost]}; less needs smaller num_bits"
                at, expected = ("budgets", name, cost), f"at least {least[cost]}"
                yield declared.marks.fault(at, "no policy fits", expected=expected, got=got, hint=hint)


def least_of_each(entries: Entries, layers: costs.Layers, ties: Ties) -> dict[str, int]:
    """The least of each cost alone, over all policies."""
    table: dict[str, dict[Entry, Candidate]] = {
        layer["name"]: {
            entry: (0, dict[str, Number](costs.layer_costs(layer, entry))) for entry in entries[layer["name"]]
        }
        for layer in costs.run_layers(layers)
    }
    exact = exact_problem(table, dict.fromkeys(COSTS, 1), ties)
    return dict(zip(exact.names, least_costs(exact.problem), strict=True))

"""What a file says of layers, held against the network: told right after `layers`, before anything is trained."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flows.declaration import Declared
from flows.parameters import Parameters
from mixbit.config import in_order
from mixbit.entries import Layers, check_groups, fixed_entries, searched_layers
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.latency import simulated_of
from mixbit.marked_yaml import Location
from tasks import indicators, policy

OWN_WORDS = r"(policy file|layers|groups\[\d+\]|groups|fixed_layers|budgets: \w+|budgets)"  # the file's line says it


def refuse_misfits(declared: Declared, p: Parameters, layers: Layers) -> None:
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


def _misfits(declared: Declared, p: Parameters, layers: Layers) -> Iterator[MixbitError]:
    e = declared.experiment
    told = [_told(declared, ("groups", at), check_groups, [group], layers) for at, group in enumerate(e.groups)]
    told.append(_told(declared, ("layers",), fixed_entries, layers, e.fixed_layers, e.layers))
    if e.policy is not None and not any(told):
        given = next(iter(p.policies.values()))
        told.append(_told(declared, ("policy",), policy.given_policy, declared.files["policy"], layers, given))
    if p.indicators is not None and "indicators.file" in declared.files and not any(told):
        file = declared.files["indicators.file"]
        table = (file.read_bytes(), layers, p.indicators, file.name)
        told.append(_told(declared, ("indicators", "file"), indicators.given_table, *table))
    if e.num_bits is not None and e.policy is None and not any(told):
        simulated = {c: v for one in p.policies.values() for c, v in one.budget.items() if simulated_of(c) is not None}
        asked = p.search.model_copy(update={"budget": simulated})
        faults, search = _tried(declared, ("layers",), policy.search_of, asked, layers)
        told += [faults, _told(declared, ("layers",), searched_layers, layers, e.fixed_layers, e.layers)]
        if not any(told):
            faults, least = _tried(declared, ("groups",), policy.least_costs, search, layers)
            told.append(faults or list(_unaffordable(declared, p, layers, least)))
    yield from (fault for faults in told for fault in faults)


def _told(declared: Declared, at: Location, check: Callable[..., object], *arguments: Any) -> list[MixbitError]:
    """The faults that `check` raises, with the line of the key they are about."""
    return _tried(declared, at, check, *arguments)[0]


def _tried(
    declared: Declared, at: Location, check: Callable[..., Any], *arguments: Any
) -> tuple[list[MixbitError], Any]:
    """(the faults that `check` raises, with the line of the key they are about; what it returns without any)."""
    try:
        return [], check(*arguments)
    except ConfigError as error:
        return [_at(declared, at, fault) for fault in error.faults], None
    except MixbitError as error:
        return [_at(declared, at, error)], None


def _at(declared: Declared, at: Location, fault: MixbitError) -> MisuseError:
    """The fault where the file says it; a rule is called by its pattern, anything else within `at` by its words."""
    inner = re.sub(f"^{OWN_WORDS}(: )?", "", fault.where)
    if (*at, inner) in declared.marks.lines:
        at, inner = (*at, inner), ""
    what = f"{inner}: {fault.what}".strip(": ")
    return declared.marks.fault(at, what, expected=fault.expected, got=fault.got, hint=fault.hint)


def _unaffordable(
    declared: Declared, p: Parameters, layers: Layers, least: Mapping[str, int | float]
) -> Iterator[MixbitError]:
    """Budgets below the least that any policy costs; what several limits allow together, only the solver can tell."""
    for name, search in p.policies.items():
        requested = {str(cost): value for cost, value in search.budget.items()}
        for cost, limit in policy.limits_of(search, layers).items():
            if limit < least[cost]:
                unit = " us" if simulated_of(cost) is not None else ""
                got = requested[cost] if requested[cost] == limit else f"{requested[cost]} = {limit}{unit}"
                hint = f"Smallest feasible: {cost} {least[cost]}{unit}; less needs smaller num_bits"
                at, expected = ("budgets", name, cost), f"at least {least[cost]}{unit}"
                yield declared.marks.fault(at, "no policy fits", expected=expected, got=got, hint=hint)

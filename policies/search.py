"""What an allocation is asked for one network: candidates with harm and costs, limits, and layers that share bits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mixbit import simulate
from mixbit.costs import layer_costs
from mixbit.entries import Layer, Layers, Rules, run_layers
from mixbit.errors import MixbitError
from mixbit.latency import simulated_of
from mixbit.policy import Entry, NumBits
from policies.bound import least_costs
from policies.pairs import Pair
from policies.table import Candidate, Number, Table, Ties, exact_problem

Alpha = float | Literal["balanced"]
Harm = dict[NumBits, float]


@dataclass(frozen=True)
class Search:
    """What a search may choose from.

    Attributes:
        num_bits: candidates.
        profile: fixed-layer profile.
        rules: per-layer rules, by pattern.
        table: layer -> entry -> (harm, costs); empty where nothing is to be solved.
        alpha: what the weights' harm in `table` was multiplied by.
        limits: cost name -> most of it.
        ties: layers that share bits.
        pairs: costs of neighbours of which exactly one is float.
        time_limit_s: when the solver gives its best so far.
    """

    num_bits: Sequence[NumBits]
    profile: str
    rules: Rules
    table: Table = field(default_factory=dict)
    alpha: float = 1.0
    limits: Mapping[str, Number] = field(default_factory=dict)
    ties: Ties = field(default_factory=Ties)
    pairs: Sequence[Pair] = ()
    time_limit_s: float = 60.0


def harm_table(
    layers: Layers,
    entries: Mapping[str, tuple[Entry, ...]],
    indicators: Mapping[str, Any] | None,
    alpha: Alpha,
    simulated: Sequence[str] = (),
) -> tuple[dict[str, dict[Entry, Candidate]], float]:
    """What the allocation reads: (layer -> entry -> (harm, costs), alpha); harm = activation + alpha * weight harm.

    Activation harm of a tensor with k readers comes as 1/k each. Bits that a layer has no choice about have no harm
    here; without indicators nothing has.

    Args:
        layers: content of layers.json.
        entries: candidates of each layer.
        indicators: layer -> kind -> num_bits -> harm.
        alpha: a number, or `balanced`, which is `balance` of the candidates' harm.
        simulated: further costs, `latency[simulated:MODEL]`.

    Raises:
        MixbitError: harm of a candidate is missing from the indicators.
    """
    weight = {name: _harm_of(name, "weight", {w for w, _ in found}, indicators) for name, found in entries.items()}
    activation = {
        name: _harm_of(name, "activation", {a for _, a in found}, indicators) for name, found in entries.items()
    }
    factor = balance(weight, activation) if alpha == "balanced" else alpha
    table: dict[str, dict[Entry, Candidate]] = {}
    for place, layer in enumerate(run_layers(layers)):
        name = layer["name"]
        table[name] = {
            (w, a): (
                activation[name][a] + factor * weight[name][w],
                _costs(layer, (w, a), simulated, first=place == 0),
            )
            for w, a in entries[name]
        }
    return table, factor


def _costs(layer: Layer, entry: Entry, simulated: Sequence[str], *, first: bool) -> dict[str, Number]:
    return {
        **layer_costs(layer, entry, first=first),
        **{cost: simulate.layer_us(str(simulated_of(cost)), layer, entry) for cost in simulated},
    }


def balance(weight: Mapping[str, Harm], activation: Mapping[str, Harm]) -> float:
    """The alpha with which the weights of all layers have as much to lose as their activations; ours, not LIMPQ's.

    Learned step sizes of activations are several times those of weights, by a factor that depends on the network and
    on how long they were learned. With alpha 1 nearly all weights get the fewest bits. Candidates count as listed for
    each layer, also those that ties with other layers rule out.

    Args:
        weight: layer -> candidate num_bits -> harm.
        activation: likewise.
    """
    of_weights, of_activations = (sum(max(row.values()) - min(row.values()) for row in kind.values())
                                  for kind in (weight, activation))  # fmt: skip
    balanced = of_activations / of_weights if of_weights > 0 else 0.0
    return balanced if 0 < balanced < math.inf else 1.0


def _harm_of(name: str, kind: str, bits: set[NumBits], indicators: Mapping[str, Any] | None) -> Harm:
    if indicators is None or len(bits) == 1:
        return dict.fromkeys(bits, 0.0)
    rows = indicators.get(name, {}).get(kind, {})
    for each in sorted(bits, key=str):
        if str(each) not in rows:
            hint = "Indicators must cover every candidate num_bits"
            raise MixbitError(
                f"indicators: {name}", f"no harm of {kind} bits", expected=each, got=list(rows), hint=hint
            )
    return {each: rows[str(each)] for each in bits}


def least_of_each(search: Search) -> dict[str, int | float]:
    """The least of each cost alone, over all policies, whatever the limits.

    Raises:
        MisuseError: an unknown layer in a tie, ties without a common entry.
        MixbitError: ties so entangled that their assignments can't be listed.
    """
    names = next(iter(next(iter(search.table.values())).values()))[1]
    exact = exact_problem(search.table, dict.fromkeys(names, 1), search.ties)
    found = zip(exact.names, least_costs(exact.problem), exact.cost_units, strict=True)
    return {name: value if unit == 1 else value / unit for name, value, unit in found}

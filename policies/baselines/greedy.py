"""The greedy policy: most bits everywhere, then the least harm per BitOps saved, step by step, until the budget holds.

The usual heuristic of quantization toolkits, without a source of its own; the form is ours. A step lowers the weight or
the activation bits of a layer, and of those tied to it, to the next candidate; only steps that lower a cost which still
exceeds its limit count. It never takes a step back, which is what an exact solver does better.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from mixbit.costs import policy_costs
from mixbit.entries import Layers
from mixbit.errors import MixbitError
from mixbit.policy import Entry, Policy, as_number
from policies.moves import difference, moved, over, total
from policies.search import Search
from policies.table import Candidate, Number, exact

HARM = "layers"


def choose(policy: Policy, layers: Layers, search: Search) -> dict[str, Entry]:
    """The policy that greedy steps reach within the limits of the search; without any, at the BitOps of `policy`.

    Raises:
        MixbitError: nothing is left to lower and a limit still does not hold.
    """
    limits: Mapping[str, Number] = search.limits or {"bitops": policy_costs(policy, layers)["bitops"]}
    here = _most_bits(search)
    totals = {cost: total(search, cost, here) for cost in limits}
    while exceeded := over(totals, limits):
        steps = list(_steps(here, exceeded, search))
        if not steps:
            what = f"no step is left, and {', '.join(exceeded)} still exceeds its limit"
            raise MixbitError("greedy", what, hint="Leave this baseline out, or allow more")
        changed = min(steps, key=lambda step: step[:3])[3]
        totals = {cost: value + difference(search, cost, here, changed) for cost, value in totals.items()}
        here |= changed
    return here


def _most_bits(search: Search) -> dict[str, Entry]:
    """Every layer at its most bits that those tied to it can take too."""
    here = {name: max(row, key=_bits) for name, row in search.table.items()}
    settled = False
    while not settled:
        settled = True
        for name in sorted(here):
            changed = moved(here, name, here[name], search.table, search.ties)
            if changed is None or any(_bits(entry) > _bits(here[other]) for other, entry in changed.items()):
                changed = {name: max((e for e in search.table[name] if _bits(e) < _bits(here[name])), key=_bits)}
            settled &= all(here[other] == entry for other, entry in changed.items())
            here |= changed
    return here


def _bits(entry: Entry) -> tuple[float, float, float]:
    weight_bits, activation_bits = map(as_number, entry)
    return weight_bits + activation_bits, weight_bits, activation_bits


_Step = tuple[Fraction, Fraction, str, dict[str, Entry]]  # harm per BitOps saved, harm, layer, what changes


def _steps(here: Policy, exceeded: Sequence[str], search: Search) -> Iterator[_Step]:
    """One step of each layer and kind, of those that save BitOps and help where a limit is exceeded."""
    for name in sorted(here):
        for entry in _lower(here[name], search.table[name]):
            changed = moved(here, name, entry, search.table, search.ties)
            if changed is None or not any(difference(search, cost, here, changed) < 0 for cost in exceeded):
                continue
            saved = -difference(search, "bitops", here, changed)
            if saved > 0:
                harm = _harm(changed, search) - _harm({other: here[other] for other in changed}, search)
                yield harm / saved, harm, name, changed


def _harm(policy: Policy, search: Search) -> Fraction:
    return Fraction(sum(exact(search.table[name][entry][0]) for name, entry in policy.items()))


def _lower(entry: Entry, row: Mapping[Entry, Candidate]) -> list[Entry]:
    """The next lower weight bits, the next lower activation bits; from float, the most bits of both."""
    less_weight = [e for e in row if e[1] == entry[1] and as_number(e[0]) < as_number(entry[0])]
    less_activation = [e for e in row if e[0] == entry[0] and as_number(e[1]) < as_number(entry[1])]
    less_of_both = [e for e in row if all(as_number(b) < as_number(a) for a, b in zip(entry, e, strict=True))]
    single = [max(found, key=_bits) for found in (less_weight, less_activation) if found]
    return single or [max(found, key=_bits) for found in (less_of_both,) if found]

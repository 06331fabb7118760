"""Steps from one policy to another that keep layers' ties; for methods that change a few layers at a time."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from mixbit.policy import Entry, NumBits, Policy, as_number
from policies.search import Search
from policies.table import Groups, Number, Table, Ties, exact

_Shared = Callable[[Entry], Entry | NumBits]


def moved(policy: Policy, layer: str, entry: Entry, table: Table, ties: Ties) -> dict[str, Entry] | None:
    """The layers that change when one takes an entry: it and those tied to it; None where these can't follow.

    A layer that follows keeps its other bits where it can, else takes the most.

    Args:
        policy: layer -> entry, ties kept.
        layer: that moves first.
        entry: that it takes.
        table: layer -> entry -> anything.
        ties: layers that share bits.
    """
    changed, todo = {layer: entry}, [layer]
    while todo:
        name = todo.pop()
        for shared, other in _followers(name, ties):
            wanted = shared(changed[name])
            if shared(changed.get(other, policy[other])) == wanted:
                continue
            found = [one for one in table[other] if shared(one) == wanted]
            if other in changed or not found:
                return None
            changed[other] = max(found, key=lambda one: (sum(map(_equal, one, policy[other])), *map(as_number, one)))
            todo.append(other)
    return changed


def _equal(one: NumBits, other: NumBits) -> bool:
    return one == other


def _followers(name: str, ties: Ties) -> list[tuple[_Shared, str]]:
    kinds: list[tuple[Groups, _Shared]] = [
        (ties.both, lambda e: e),
        (ties.weight, lambda e: e[0]),
        (ties.activation, lambda e: e[1]),
    ]
    found = [(of, group) for groups, of in kinds for group in groups if name in group]
    return [(of, other) for of, group in found for other in group if other != name]


def total(search: Search, cost: str, policy: Policy) -> Fraction:
    """What a policy costs by the table, pairs included, exactly."""
    return _sum(search, cost, policy) + _pairs(search, cost, policy)


def difference(search: Search, cost: str, policy: Policy, changed: Policy) -> Fraction:
    """What a policy costs more once some layers have changed."""
    before = {name: policy[name] for name in changed}
    single = _sum(search, cost, changed) - _sum(search, cost, before)
    return single + (_pairs(search, cost, {**policy, **changed}) - _pairs(search, cost, policy) if search.pairs else 0)


def _sum(search: Search, cost: str, policy: Policy) -> Fraction:
    return Fraction(sum(exact(search.table[name][entry][1][cost]) for name, entry in policy.items()))


def _pairs(search: Search, cost: str, policy: Policy) -> Fraction:
    pairs = (pair for pair in search.pairs if pair.cost == cost)
    return Fraction(sum(exact(pair.of(policy[pair.layers[0]], policy[pair.layers[1]])) for pair in pairs))


def over(totals: Mapping[str, Fraction], limits: Mapping[str, Number]) -> Sequence[str]:
    """The costs that exceed their limit."""
    return [cost for cost, limit in sorted(limits.items()) if totals[cost] > exact(limit)]

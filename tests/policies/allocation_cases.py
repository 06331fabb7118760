"""Tables and what is best of them, by hand and by trying everything."""

import itertools
import random
from fractions import Fraction

from hypothesis import strategies as st

from policies.table import Ties

# Two layers; per layer (harm, bitops) of 2, 4 and 8 bits in both.
HAND = {
    "a": {(2, 2): (9.0, {"bitops": 4}), (4, 4): (4.0, {"bitops": 16}), (8, 8): (1.0, {"bitops": 64})},
    "b": {(2, 2): (7.0, {"bitops": 8}), (4, 4): (1.0, {"bitops": 32}), (8, 8): (0.5, {"bitops": 128})},
}


def exact(value):
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def every_policy(table, ties):
    """(harm, costs by name) of each policy that the ties allow."""
    for entries in itertools.product(*(table[name] for name in table)):
        policy = dict(zip(table, entries, strict=True))
        same = [(ties.both, lambda e: e), (ties.weight, lambda e: e[0]), (ties.activation, lambda e: e[1])]
        if all(len({of(policy[name]) for name in group}) == 1 for groups, of in same for group in groups):
            rows = [table[name][entry] for name, entry in policy.items()]
            names = sorted(rows[0][1])
            yield sum(exact(harm) for harm, _ in rows), {k: sum(exact(costs[k]) for _, costs in rows) for k in names}


def brute_force(table, limits, ties):
    """(least harm, its costs) with ties to the lower costs, or the smallest feasible limits."""
    found = list(every_policy(table, ties))

    def within(costs, names):
        return all(costs[k] <= exact(limits[k]) for k in names)

    fitting = [(harm, costs) for harm, costs in found if within(costs, limits)]
    if fitting:
        return min(fitting, key=lambda row: (row[0], list(row[1].values())))
    others = {k: [costs[k] for _, costs in found if within(costs, set(limits) - {k})] for k in limits}
    return {k: min(values or [costs[k] for _, costs in found]) for k, values in others.items()}


@st.composite
def problems(draw):
    names = [f"l{i}" for i in range(draw(st.integers(1, 4)))]
    kinds = draw(st.lists(st.sampled_from(["bitops", "size_bits", "x"]), min_size=1, max_size=3, unique=True))
    entries = draw(st.sampled_from([[(2, 2), (4, 4)], [(2, 2), (2, 4), (4, 2), (4, 4)], [(2, 2), (3, 3), (8, 8)]]))
    harm = draw(st.sampled_from([st.integers(0, 4), st.floats(0, 1e-9), st.sampled_from([1e8, 1e-9, 2e-9, 0.5])]))
    cost = draw(st.sampled_from([st.integers(0, 9), st.integers(0, 10**13), st.sampled_from([0.1, 0.2, 0.3])]))
    table = {name: {e: (draw(harm), {k: draw(cost) for k in kinds}) for e in entries} for name in names}
    asked = draw(st.lists(st.sampled_from(kinds), unique=True))
    limits = {k: sum(draw(st.sampled_from(list(table[name].values())))[1][k] for name in names) for k in asked}
    groups = st.lists(st.lists(st.sampled_from(names), min_size=2, max_size=3), max_size=1)
    return table, limits, Ties(draw(groups), draw(groups), draw(groups))


def random_table(layers, seed):
    rng = random.Random(seed)
    table = {}
    for i in range(layers):
        macs, weights, s_w, s_a = rng.randint(10**3, 10**4), rng.randint(100, 10**4), rng.random(), rng.random()
        table[f"l{i:03}"] = {
            (w, a): (s_w / 4**w + s_a / 4**a, {"bitops": macs * w * a, "size_bits": weights * w})
            for w in range(2, 7)
            for a in range(2, 7)
        }
    return table


def uniform_bitops(table, bits):
    return sum(row[bits, bits][1]["bitops"] for row in table.values())

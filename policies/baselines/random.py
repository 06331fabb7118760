"""A random policy of equal cost: what choosing at random would have given.

Our own form: a random walk from the policy compared with, over policies with the same candidates, ties and limits whose
BitOps lie in [0.98, 1.00] of its own; a limit that it exceeds itself is what it takes. The seed is fixed, so the same
search has the same random policy.
"""

import random
from collections.abc import Mapping
from fractions import Fraction

from mixbit.costs import policy_costs
from mixbit.entries import Layers
from mixbit.policy import Entry, Policy
from policies.moves import difference, moved, over, total
from policies.search import Search
from policies.table import Number, exact

HARM = "layers"
LEAST_SHARE = Fraction(98, 100)
SEED = 0
# Proposals per layer; most are refused, for they leave the window.
STEPS = 200
AT_ONCE = (1, 2, 2, 3)


def choose(policy: Policy, layers: Layers, search: Search) -> dict[str, Entry]:
    """A random policy at the BitOps of `policy`; that itself where there is no other."""
    spent = policy_costs(policy, layers)["bitops"]
    totals = {name: total(search, name, policy) for name in {*search.limits, "bitops"}}
    limits: dict[str, Number] = {name: max(exact(limit), totals[name]) for name, limit in search.limits.items()}
    limits["bitops"] = min(limits.get("bitops", spent), spent)
    rng = random.Random(SEED)  # noqa: S311 - no secret
    free = sorted(name for name, row in search.table.items() if len(row) > 1)
    here = dict(policy)
    for _ in range(STEPS * len(free)):
        changed = _proposed(here, free, search, rng)
        after = {name: value + difference(search, name, here, changed) for name, value in totals.items()}
        if after["bitops"] >= LEAST_SHARE * spent and not over(after, limits):
            here, totals = here | changed, after
    return here


def _proposed(policy: Mapping[str, Entry], free: list[str], search: Search, rng: random.Random) -> dict[str, Entry]:
    """New entries of a few layers at random, and of those tied to them; nothing where these can't follow."""
    changes: dict[str, Entry] = {}
    for name in rng.sample(free, min(len(free), rng.choice(AT_ONCE))):
        entry = rng.choice(sorted(search.table[name], key=str))
        changed = moved({**policy, **changes}, name, entry, search.table, search.ties)
        if changed is None:
            return {}
        changes |= changed
    return changes

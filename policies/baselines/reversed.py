"""The reversed policy: the most harm at the same BitOps. It loses a lot if the indicators mean anything.

After LIMPQ's reversed assignment (Tang et al. 2022, https://arxiv.org/abs/2203.08368); the exact form is ours, as the
paper's detail was not available: among policies with the same candidates, ties and limits whose BitOps lie in
[0.98, 1.00] of those of the policy compared with, the one with the most harm, by the same solver.
"""

from collections.abc import Mapping
from fractions import Fraction

from mixbit.costs import policy_costs
from mixbit.entries import Layers
from mixbit.errors import MixbitError
from mixbit.policy import Entry, Policy
from policies.ilp import allocate
from policies.search import Search
from policies.table import Candidate, Number, exact

HARM = "layers"
# A policy that spends less would lose because it has fewer bits, not because they lie in the wrong places.
LEAST_SHARE = Fraction(98, 100)
UNSPENT = "unspent bitops"


def choose(policy: Policy, layers: Layers, search: Search) -> dict[str, Entry]:
    """The most harmful policy at the BitOps of `policy`.

    Raises:
        MixbitError: none found in time.
    """
    spent = policy_costs(policy, layers)["bitops"]
    dearest = sum(_dearest(row) for row in search.table.values())
    limits: dict[str, Number] = {**search.limits, "bitops": spent, UNSPENT: dearest - LEAST_SHARE * spent}
    turned = {name: _turned(row) for name, row in search.table.items()}
    found = allocate(turned, limits, search.ties, search.time_limit_s)
    if not found.policy:
        raise MixbitError("reversed", "no policy found in time", hint="Raise allocation.time_limit_s")
    return found.policy


def _dearest(row: Mapping[Entry, Candidate]) -> int:
    return max(int(costs["bitops"]) for _, costs in row.values())


def _turned(row: Mapping[Entry, Candidate]) -> dict[Entry, Candidate]:
    """Harm counted from the worst entry down; a cost more, so that a limit on it is a least of BitOps."""
    worst, dearest = max(exact(harm) for harm, _ in row.values()), _dearest(row)
    return {
        entry: (worst - exact(harm), {**costs, UNSPENT: dearest - int(costs["bitops"])})
        for entry, (harm, costs) in row.items()
    }

"""The same search on untrained indicators: what the training of the indicators was worth.

LIMPQ's step sizes before their training come from statistics of weights and activations (Tang et al. 2022,
https://arxiv.org/abs/2203.08368); the budget, the candidates and the solver are those of the policy compared with.
"""

from mixbit.entries import Layers
from mixbit.errors import MixbitError
from mixbit.policy import Entry, Policy
from policies.ilp import allocate
from policies.search import Search

HARM = "initial"


def choose(policy: Policy, layers: Layers, search: Search) -> dict[str, Entry]:  # noqa: ARG001 - the folder's contract
    """The policy of least untrained harm within the same limits.

    Raises:
        MixbitError: no policy found in time.
    """
    found = allocate(search.table, search.limits, search.ties, search.time_limit_s)
    if not found.policy:
        raise MixbitError("statistics_init_only", "no policy found in time", hint="Raise allocation.time_limit_s")
    return found.policy

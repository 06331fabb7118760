"""Policies to compare a searched one with: one file each, named in YAML by its file name.

A file holds two names; nothing in it imports torch:

- `HARM`: which table of indicators.json fills `Search.table`: `layers` (what the search read), `initial` (the same
  before anything was trained), or None for a baseline that reads no indicators.
- `choose(policy, layers, search)` -> layer -> entry. policy is what the baseline is compared with, layers the content
  of layers.json. It raises MixbitError when it finds no policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixbit.costs import Rules
from mixbit.policy import NumBits
from policies.pairs import Pair
from policies.table import Number, Table, Ties


@dataclass(frozen=True)
class Search:
    """What the search that gave a policy could choose from.

    Attributes:
        num_bits: candidates.
        profile: fixed-layer profile.
        rules: per-layer rules, by pattern.
        table: layer -> entry -> (harm, costs); empty without `HARM`.
        limits: cost name -> most of it.
        ties: layers that share bits.
        pairs: costs of neighbours of which exactly one is float.
        time_limit_s: when the solver gives its best so far.
    """

    num_bits: Sequence[NumBits]
    profile: str
    rules: Rules
    table: Table = field(default_factory=dict)
    limits: Mapping[str, Number] = field(default_factory=dict)
    ties: Ties = field(default_factory=Ties)
    pairs: Sequence[Pair] = ()
    time_limit_s: float = 60.0

"""Uniform policies: the same bits in every searched layer. What a mixed policy has to beat."""

from mixbit.costs import policy_costs
from mixbit.entries import Layers, Rules, uniform_policy
from mixbit.errors import MisuseError
from mixbit.policy import Entry, NumBits, Policy
from policies.search import Search

HARM = None


def uniform(
    layers: Layers, weight_bits: NumBits, activation_bits: NumBits, profile: str, rules: Rules
) -> dict[str, Entry]:
    """One entry for every searched layer; fixed layers by the profile, excluded ones float.

    Groups hold by themselves: all searched layers agree. min_bits and max_bits of rules don't count here.

    Args:
        layers: content of layers.json.
        weight_bits: 2 to 8, or float.
        activation_bits: 2 to 8, or float.
        profile: fixed-layer profile, see `mixbit.entries.PROFILES`.
        rules: per-layer rules, by pattern.

    Raises:
        MisuseError: an unknown profile, a pattern that matches no layer.
    """
    return uniform_policy(layers, (weight_bits, activation_bits), profile, rules)


def choose(policy: Policy, layers: Layers, search: Search) -> dict[str, Entry]:
    """The cheapest uniform (b, b) policy with at least the BitOps of `policy`; the dearest when none has as many.

    Raises:
        MisuseError: no candidates; and as `uniform`.
    """
    if not search.num_bits:
        raise MisuseError("num_bits", "no candidates for a uniform policy")
    at_least = policy_costs(policy, layers)["bitops"]
    policies = [uniform(layers, bits, bits, search.profile, search.rules) for bits in search.num_bits]
    # Costs first; of equally dear ones (everything fixed) the first candidate.
    costs = [policy_costs(found, layers)["bitops"] for found in policies]
    enough = [(value, place) for place, value in enumerate(costs) if value >= at_least]
    _, place = min(enough) if enough else max((value, -place) for place, value in enumerate(costs))
    return policies[abs(place)]

"""A limit on peak activation memory, on a small residual net, against every policy there is."""

from dataclasses import replace
from itertools import product

import pytest

from mixbit.activation_memory import is_row, peak_activation_bytes
from mixbit.costs import policy_costs
from mixbit.limits import PEAK
from mixbit.models.graph import describe_layers
from policies.baselines.reversed import choose
from policies.ilp import allocate
from policies.peak import least_peak_of
from tasks.policy import Params, search_of
from tests.mixbit.models.networks import Residual

LAYERS = describe_layers(Residual(), (1, 8, 8))
NAMES = [layer["name"] for layer in LAYERS["layers"]]
BITS = (2, 4, "float")
HARMS = {str(bits): 3.0 ** -(8 if bits == "float" else bits) for bits in (*BITS, 3)}
INDICATORS = {
    name: {kind: {bits: (place + 1) * harm for bits, harm in HARMS.items()} for kind in ("weight", "activation")}
    for place, name in enumerate(NAMES)
}


def search(num_bits=BITS, **budget):
    params = Params(budget=budget, num_bits=num_bits, fixed_layers="none", alpha=1.0)
    return search_of(params, LAYERS, INDICATORS)


def every_policy(table):
    for entries in product(*(table[name] for name in NAMES)):
        policy = dict(zip(NAMES, entries, strict=True))
        if policy["conv1"][1] == policy["shortcut"][1]:
            yield sum(table[name][entry][0] for name, entry in policy.items()), policy


@pytest.mark.parametrize("limit", [320, 330, 383, 384, 400, 500, 700, 1300])
@pytest.mark.parametrize("others", [{}, {"size_bits": 4000}])
def test_the_best_policy_within_a_peak_equals_brute_force(limit, others):
    asked = search(**{PEAK: limit}, **others)
    found = allocate(asked.table, asked.limits, asked.ties)
    fitting = [
        harm
        for harm, policy in every_policy(asked.table)
        if all(policy_costs(policy, LAYERS)[name] <= most for name, most in {PEAK: limit, **others}.items())
    ]
    assert found.status == ("optimal" if fitting else "infeasible")
    if fitting:
        assert found.harm == pytest.approx(min(fitting), rel=1e-4)
        assert peak_activation_bytes(found.policy, LAYERS) <= limit


def test_the_least_peak_is_that_of_the_best_policy_there_is():
    asked = search(**{PEAK: 10})
    assert least_peak_of(asked) == min(peak_activation_bytes(policy, LAYERS) for _, policy in every_policy(asked.table))


def test_the_least_peak_keeps_the_other_limits():
    asked = replace(search((4, "float"), **{PEAK: 10, "size_bits": 10**6}))
    assert least_peak_of(asked) == 384


def test_a_sum_kept_at_8_bit_leaves_nothing_to_choose_below_4_bit():
    names = [name for name in search((2, 3, 4), **{PEAK: "1 kB"}).limits if is_row(name)]
    assert len(names) == 1


def test_baselines_keep_the_peak():
    asked = search(**{PEAK: 400})
    compared = allocate(asked.table, asked.limits, asked.ties).policy
    assert peak_activation_bytes(choose(compared, LAYERS, asked), LAYERS) <= 400

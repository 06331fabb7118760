import math
from itertools import product

import pytest
import torch

from mixbit.costs import layer_costs
from mixbit.errors import MixbitError
from mixbit.models.graph import describe_layers, trace
from policies.ilp import allocate
from policies.indicators.ompq import Settings, cka, grams, weights
from tests.policies.indicator_case import SHAPE, compute, pictures, resnet, searched


def gram(features):
    return features.double() @ features.double().T


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_features_are_alike_also_turned_and_scaled():
    features = drawn(16, 5)
    turned = features @ torch.linalg.qr(drawn(5, 5, seed=1))[0] * 3
    alike = cka([gram(features), gram(turned)])
    assert alike[0][1] == pytest.approx(1)
    assert alike[0][1] == alike[1][0]


def test_wide_independent_features_of_few_pictures_are_not_alike():
    found = [cka([gram(drawn(16, 400, seed=2 * s)), gram(drawn(16, 400, seed=2 * s + 1))])[0][1] for s in range(40)]
    assert sum(found) / len(found) == pytest.approx(0, abs=0.05)


def test_it_is_the_unbiased_estimate_written_out():
    one, two = gram(drawn(6, 3)), gram(drawn(6, 4, seed=1))
    n, ones = 6, torch.ones(6, dtype=torch.float64)

    def hsic(a, b):
        a, b = a - torch.diag(a.diag()), b - torch.diag(b.diag())
        third = 2 / (n - 2) * (ones @ a @ b @ ones)
        return (a @ b).trace() + (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2)) - third

    expected = hsic(one, two) / (hsic(one, one) * hsic(two, two)).sqrt()
    assert cka([one, two])[0][1] == pytest.approx(expected.item())


def test_features_that_never_change_are_like_none():
    assert cka([gram(torch.ones(8, 3)), gram(drawn(8, 3))])[0] == [1, 0]


def test_features_are_a_layers_outputs_whatever_their_width(monkeypatch):
    names, inputs = ["stages.0.conv1", "fc"], pictures(8).x
    graph = trace(resnet(), SHAPE)
    whole = grams(graph, inputs, names)
    monkeypatch.setattr("policies.indicators.ompq._COLUMNS", 7)
    for one, other in zip(whole, grams(graph, inputs, names), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole[1], gram(graph(inputs).detach()))


def test_the_automatic_beta_spreads_the_weights_as_asked():
    own = weights([1.0, 3.0, 2.0], Settings(spread=10, suffix_mean=False))
    assert max(own) / min(own) == pytest.approx(10)
    assert own[0] == 1
    assert own[2] == pytest.approx(10**-0.5)


def test_a_large_beta_does_not_make_all_weights_vanish():
    assert weights([8.0, 8.1], Settings(beta=100, suffix_mean=False)) == pytest.approx([1, math.exp(-10)])


def test_the_published_weight_is_the_mean_from_the_layer_on():
    own = weights([0.0, 1.0, 2.0], Settings(beta=1, suffix_mean=False))
    means = [sum(own[i:]) / len(own[i:]) for i in range(3)]
    assert weights([0.0, 1.0, 2.0], Settings(beta=1)) == pytest.approx([m / max(means) for m in means])


def test_the_least_harm_is_the_most_of_the_papers_sum(tmp_path):
    layers = describe_layers(resnet(), SHAPE)
    indicators, _ = compute("ompq", tmp_path, num_bits=(2, 4, 8))
    rows, costs = indicators["layers"], {layer["name"]: layer for layer in layers["layers"]}
    table = {
        name: {(b, 8): (rows[name]["weight"][str(b)], layer_costs(costs[name], (b, 8))) for b in (2, 4, 8)}
        for name in rows
    }
    limit = sum(costs[name]["weights"] for name in rows) * 4
    found = allocate(table, {"size_bits": limit}).policy
    gained = sum(bits * indicators["importance"][name] for name, (bits, _) in found.items())
    names = list(rows)
    most = max(
        sum(b * indicators["importance"][name] for name, b in zip(names, choice, strict=True))
        for choice in product((2, 4, 8), repeat=len(names))
        if sum(costs[name]["weights"] * b for name, b in zip(names, choice, strict=True)) <= limit
    )
    assert gained == pytest.approx(most)


def test_a_layer_that_repeats_another_is_entirely_like_it(tmp_path):
    net = resnet()
    with torch.no_grad():  # the second convolution hands on what the first one made
        net.stages[0].bn1.bias.fill_(5)
        net.stages[0].conv2.weight.zero_()
        net.stages[0].conv2.weight[[0, 1], [0, 1], 1, 1] = 1
    names = searched(describe_layers(net, SHAPE))
    alike = compute("ompq", tmp_path, net=net)[0]["cka"]
    row = alike[names.index("stages.0.conv1")]
    assert row[names.index("stages.0.conv2")] == pytest.approx(1) == max(row[1:])
    assert sorted(row)[-3] < 0.9


def test_three_pictures_are_too_few(tmp_path):
    with pytest.raises(MixbitError, match="too few pictures, expected at least 4, got 3"):
        compute("ompq", tmp_path, given=pictures(3))

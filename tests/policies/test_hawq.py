import statistics

import pytest
import torch
from torch import nn

from mixbit.errors import MixbitError
from mixbit.models.graph import describe_layers
from mixbit.models.one_tensor import build_switchable
from mixbit.training.batches import Pictures
from mixbit.training.task import user_task
from policies.indicators.hawq import products
from tests.policies.indicator_case import compute, resnet


def half_square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


def metric(outputs, targets):
    return (outputs - targets).abs().mean(1)


SQUARES = user_task(half_square, metric, "minimize")


class Chain(nn.Module):
    """Two linear layers without a nonlinearity: with a half square, both Hessians are known."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))


@pytest.fixture
def case():
    torch.manual_seed(0)
    given = Pictures(torch.randn(8, 1, 2, 2), torch.randn(8, 2), {"mean": [0.0], "std": [1.0]})
    net = Chain().eval()
    return {"net": net, "given": given, "layers": describe_layers(net, (1, 2, 2)), "names": ["first", "second"]}


@torch.no_grad()
def by_hand(case):
    """Tr of x x^T (x) V^T V, of I (x) h h^T, of (V W)^T V W and of V^T V; the first two are means over pictures."""
    x, first, second = case["given"].x.flatten(1), case["net"].first.weight, case["net"].second.weight
    hidden = x @ first.T
    return {
        ("weight", "first"): x.square().sum(1).mean() * second.square().sum(),
        ("weight", "second"): 2 * hidden.square().sum(1).mean(),
        ("activation", "flatten"): (second @ first).square().sum(),
        ("activation", "first"): second.square().sum(),
    }


def test_the_mean_of_many_probes_is_the_trace_of_a_known_hessian(case):
    switchable = build_switchable(case["net"], case["layers"], (4,), case["given"].x)
    expected, inputs, targets = by_hand(case), case["given"].x, case["given"].y
    drawn = [
        products(switchable, inputs, targets, task=SQUARES, wanted=list(expected), seed=(0, k)) for k in range(200)
    ]
    for (key, trace), values in zip(expected.items(), zip(*drawn, strict=True), strict=True):
        error = statistics.stdev(values) / 200**0.5 / 8
        assert statistics.fmean(values) / 8 == pytest.approx(trace.item(), abs=3 * error), key
        assert error < 0.2 * trace.item()


def test_harm_is_trace_by_elements_times_the_sum_of_squared_errors(case, tmp_path):
    indicators, _ = compute("hawq", tmp_path, task=SQUARES, num_bits=(3,), **case)
    weight = case["net"].second.weight.detach()
    from mixbit.models.supernet import weight_quantizer

    quantizer = weight_quantizer(build_switchable(case["net"], case["layers"], (3,), case["given"].x), "second")
    quantizer.num_bits = 3
    error = (quantizer(weight) - weight).square().sum().item()
    trace = indicators["traces"]["weight"]["second"]["trace"]
    assert indicators["raw"]["second"]["weight"]["3"] == pytest.approx(trace / 6 * error, rel=1e-5)


def test_probes_stop_when_all_traces_are_known_well_enough(case, tmp_path):
    few, more = (
        compute("hawq", tmp_path / str(t), task=SQUARES, tolerance=t, probes=200, **case)[0] for t in (0.5, 0.1)
    )
    assert few["cost"]["forward_passes"] < more["cost"]["forward_passes"] < 200
    told = [one for kind in more["traces"].values() for one in kind.values()]
    assert all(one["standard_error"] <= 0.1 * abs(one["trace"]) for one in told)


def test_a_tensor_is_perturbed_for_the_layers_that_read_it_and_not_for_the_shortcut(tmp_path):
    net = resnet()
    with torch.no_grad():  # nothing of this block's layers reaches the output, what they read still does
        net.stages[0].bn2.weight.zero_()
    indicators, _ = compute("hawq", tmp_path, net=net)
    assert indicators["layers"]["stages.0.conv1"]["activation"]["2"] == 0


def test_a_loss_without_a_second_derivative_is_refused(case, tmp_path):
    case["net"] = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    case |= {"layers": describe_layers(case["net"], (1, 2, 2)), "names": ["1"]}
    task = user_task(lambda outputs, targets: (outputs - targets).sum(), metric, "minimize")
    with pytest.raises(MixbitError, match=r"no second derivative.*fisher"):
        compute("hawq", tmp_path, task=task, **case)

import pytest
import torch
from torch import nn

from mixbit.models.graph import describe_layers
from mixbit.quantizers.mse import mse_scale
from mixbit.training.batches import Pictures
from mixbit.training.task import user_task
from tests.policies.indicator_case import compute, pictures, resnet


class Line(nn.Module):
    """out = V relu(W x): two layers whose scores fit on a page."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


def half_square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


SQUARES = user_task(half_square, lambda outputs, targets: (outputs - targets).abs().mean(1), "minimize")


@pytest.fixture
def case():
    torch.manual_seed(0)
    given = Pictures(torch.randn(8, 1, 2, 2), torch.randn(8, 2), {"mean": [0.0], "std": [1.0]})
    net = Line().eval()
    return {"net": net, "given": given, "layers": describe_layers(net, (1, 2, 2)), "names": ["first", "second"]}


def rounded(x, num_bits, signed, channel_dim=None):
    scale = mse_scale(x, num_bits, signed, channel_dim)
    low, high = (-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1) if signed else (0, 2**num_bits - 1)
    return (x / scale).clamp(low, high).round() * scale


def test_the_score_of_a_linear_net_is_the_one_by_hand(case, tmp_path):
    raw = compute("fisher", tmp_path, task=SQUARES, num_bits=(2,), **case)[0]["raw"]
    net, x, y = case["net"].requires_grad_(requires_grad=False), case["given"].x.flatten(1), case["given"].y
    hidden = torch.relu(x @ net.first.weight.T)
    # Of a half square the gradient at the output is the residual; at the first layer's output it comes back by V.
    at_second = hidden @ net.second.weight.T - y
    at_first = (at_second @ net.second.weight) * (hidden > 0)
    second_error = hidden @ (rounded(net.second.weight, 2, signed=True, channel_dim=0) - net.second.weight).T
    read_error = (rounded(x, 2, signed=True) - x) @ net.first.weight.T
    by_hand = (at_second * second_error).square().sum().item() / 8
    assert raw["second"]["weight"]["2"] == pytest.approx(by_hand, rel=1e-4)
    assert raw["first"]["activation"]["2"] == pytest.approx((at_first * read_error).square().sum().item() / 8, rel=1e-4)


def test_the_score_does_not_depend_on_batches(case, tmp_path):
    whole, parts = (
        compute("fisher", tmp_path / str(size), task=SQUARES, batch_size=size, **case)[0]["raw"] for size in (8, 3)
    )
    assert whole["first"]["weight"] == pytest.approx(parts["first"]["weight"], rel=1e-5)


def test_twice_the_same_pictures_score_alike(tmp_path):
    once, given = pictures(16), pictures(16)
    twice = Pictures(torch.cat([given.x, given.x]), torch.cat([given.y, given.y]), given.info)
    scores = [compute("fisher", tmp_path / str(len(p)), given=p)[0]["raw"] for p in (once, twice)]
    assert scores[0]["stages.1.conv1"]["weight"] == pytest.approx(scores[1]["stages.1.conv1"]["weight"], rel=1e-4)


def test_a_tensor_has_the_sum_of_its_readers_scores(tmp_path):
    net, name = resnet(), "stages.1.shortcut.0"
    both = compute("fisher", tmp_path / "a", net=net)[0]["raw"]["stages.1.conv1"]["activation"]["2"]
    with torch.no_grad():  # gamma 0: nothing of the shortcut reaches the output, so it has no gradient
        net.stages[1].shortcut[1].weight.zero_()
    one = compute("fisher", tmp_path / "b", net=net)[0]["raw"]
    assert one[name]["weight"]["2"] == 0
    assert both > 0
    assert one["stages.1.conv1"]["activation"] == one[name]["activation"]

import pytest
import torch
from torch import nn

from mixbit.quantizers.lsq import Quantizer
from mixbit.training.optimizer import ScaleOptimizer, Schedule, build_optimizers, scale_parameters


@pytest.mark.parametrize("size", [1e-4, 1.0, 50.0])
def test_the_first_step_is_the_same_share_of_every_scale(size):
    scale = nn.Parameter(torch.tensor(size))
    scale.grad = torch.tensor(0.37)
    ScaleOptimizer([scale], 0.1).step()
    assert scale.item() == pytest.approx(size * 0.9048374, rel=1e-4)


def test_a_scale_finds_its_place_from_far_away():
    scale = nn.Parameter(torch.tensor([3.0, 0.01]))
    optimizer = ScaleOptimizer([scale], 0.1)
    for _ in range(300):
        scale.grad = scale.detach() - 0.5
        optimizer.step()
    assert scale.tolist() == pytest.approx([0.5, 0.5], rel=0.05)


def test_a_scale_without_gradient_stays():
    scale = nn.Parameter(torch.tensor(1.0))
    optimizer = ScaleOptimizer([scale], 0.1)
    scale.grad = torch.tensor(1.0)
    optimizer.step()
    before, scale.grad = scale.item(), None
    optimizer.step()
    assert scale.item() == before


def test_scales_are_kept_apart_from_weights_and_decay():
    net = nn.Sequential(nn.Linear(2, 2), Quantizer(torch.tensor(0.1), num_bits=4, signed=True))
    schedule = Schedule(1, 1, learning_rate=0.5, weight_decay=0.1, scale_learning_rate=0.02)
    weights, scales = build_optimizers(net, schedule)
    assert scale_parameters(net) == [net[1].scale]
    assert scales.param_groups[0]["params"] == [net[1].scale]
    assert not any(parameter is net[1].scale for group in weights.param_groups for parameter in group["params"])
    assert "weight_decay" not in scales.param_groups[0]

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixbit.models.graph import trace
from tests.mixbit.models.networks import Body


@pytest.mark.parametrize(
    "after",
    [
        lambda self, x: x.relu_(),
        lambda self, x: torch.relu_(x),
        lambda self, x: F.relu(x, True),
        lambda self, x: F.relu(x, inplace=True) + x,
        lambda self, x: F.leaky_relu(x, 0.1, True),
        lambda self, x: F.elu_(x) * x,
        lambda self, x: x.add_(1).mul_(2),
        lambda self, x: x.clamp_(min=0) + x,
        lambda self, x: self.act(self.act(x) - 0.1) + x,
    ],
)
def test_in_place_operations_keep_their_meaning(after):
    model = Body(after, act=nn.ReLU(inplace=True)).eval()
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    graph = trace(model, (1, 5, 5))
    assert torch.equal(graph(x), copy.deepcopy(model)(x))
    assert not any(str(node.target).endswith("_") for node in graph.graph.nodes)


def test_augmented_assignment_of_a_number_leaves_its_other_names():
    def numbers(self, x):
        height = size = x.shape[2]
        size *= 2
        return F.pad(x, (0, size - height, 0, height)) * height

    model = Body(numbers).eval()
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trace(model, (1, 5, 5))(x), copy.deepcopy(model)(x))


def test_augmented_assignment_changes_what_other_names_see():
    def augmented(self, x):
        before = x
        x += 1
        x *= 2
        x -= 3
        x /= 4
        return x + before

    model = Body(augmented).eval()
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trace(model, (1, 5, 5))(x), copy.deepcopy(model)(x))

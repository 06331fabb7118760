import math

import pytest
import torch
from torch import nn

from mixbit.errors import MixbitError
from mixbit.training.evaluate import evaluate, judge
from mixbit.training.task import classification

INFO = {"mean": [0.0], "std": [1.0]}


def test_metric_loss_and_their_standard_errors():
    outputs = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [4.0, 0.0]])
    found = judge(outputs, torch.tensor([0, 1, 0, 1]), classification(), batch_size=3)
    right, wrong = math.log1p(math.exp(-4)), math.log1p(math.exp(4))
    assert found.metric == 0.75
    assert found.metric_se == pytest.approx(0.25)
    assert found.loss == pytest.approx((3 * right + wrong) / 4)
    assert found.loss_se == pytest.approx(1.0)


def test_evaluation_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64), INFO, classification())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_nan_outputs_are_refused_with_their_number():
    outputs = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
    with pytest.raises(MixbitError, match="infinite outputs for 2 of 3 pictures"):
        judge(outputs, torch.zeros(3, dtype=torch.int64), classification())


def test_an_empty_split_is_refused():
    with pytest.raises(MixbitError, match="no pictures"):
        evaluate(nn.Flatten(), torch.rand(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64), INFO, classification())

"""Metric and loss of a model on one split, with standard errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixbit.errors import MixbitError
from mixbit.training.batches import normalize
from mixbit.training.channels_last import channels_last
from mixbit.training.task import LearningTask


@dataclass(frozen=True)
class Evaluation:
    """Means over pictures and their standard errors (sample deviation / sqrt(N); 0 for a single picture)."""

    metric: float
    loss: float
    metric_se: float
    loss_se: float


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, info: Mapping[str, Any], task: LearningTask, *, batch_size: int = 128
) -> Evaluation:
    """Judge a model in evaluation mode; its mode is restored.

    Args:
        model: normalized float32 [N, C, H, W] -> outputs.
        x: pictures in the data set's units, [N, C, H, W], on the model's device.
        y: targets, [N].
        info: dataset_info.json.
        task: loss and metric.
        batch_size: pictures per forward pass.

    Raises:
        MixbitError: no pictures, or outputs, losses or metric that are NaN or infinite.
    """
    outputs = predict(model, x, info, batch_size=batch_size)
    return judge(outputs, y, task, batch_size=batch_size)


def predict(model: nn.Module, x: Tensor, info: Mapping[str, Any], *, batch_size: int = 128) -> Tensor:
    """Outputs of a model in evaluation mode, [N, ...]."""
    if len(x) == 0:
        raise MixbitError("evaluation", "no pictures", hint="Check the split's count in dataset_info.json")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), channels_last(model, normalize(x[:1], info)):
            return torch.cat([model(normalize(batch, info)).contiguous() for batch in x.split(batch_size)])
    finally:
        model.train(was_training)


def judge(outputs: Tensor, y: Tensor, task: LearningTask, *, batch_size: int = 128) -> Evaluation:
    """Judge outputs that were computed anywhere, such as by a deployed file."""
    if not torch.isfinite(outputs).all():
        count = int((~torch.isfinite(outputs)).flatten(1).any(1).sum())
        what = f"NaN or infinite outputs for {count} of {len(y)} pictures"
        raise MixbitError("evaluation", what, hint="Train with a lower learning_rate, or look for NaN in the pictures")
    pairs = list(zip(outputs.split(batch_size), y.split(batch_size), strict=True))
    metric, metric_se = _mean(torch.cat([task.metric(*pair) for pair in pairs]), "metric")
    loss, loss_se = _mean(torch.cat([task.losses(*pair) for pair in pairs]), "loss")
    return Evaluation(metric, loss, metric_se, loss_se)


def _mean(values: Tensor, name: str) -> tuple[float, float]:
    values = values.detach().double()
    if not torch.isfinite(values).all():
        raise MixbitError("evaluation", f"the {name} is NaN or infinite for some pictures", expected="finite values")
    deviation = values.std(correction=1).item() if len(values) > 1 else 0.0
    return values.mean().item(), deviation / len(values) ** 0.5

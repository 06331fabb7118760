"""What is learned and how it is judged: built-in classification, or the user's own loss and metric."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mixbit.errors import MixbitError
from mixbit.experiment import Task
from mixbit.load import load_callable


@dataclass(frozen=True)
class LearningTask:
    """Loss and metric of one task.

    Attributes:
        loss: (outputs, targets) -> scalar tensor to minimize while training.
        losses: (outputs, targets) -> one loss per picture, [N], for reporting; never smoothed.
        metric: (outputs, targets) -> one value per picture, [N].
        direction: which way the metric is better.
        is_classification: whether it is the built-in one, whose outputs are logits [N, classes].
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    losses: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    direction: Literal["maximize", "minimize"]
    is_classification: bool = False


def build_task(declared: Literal["classification"] | Task, search_path: Sequence[Path] = ()) -> LearningTask:
    """The declared task.

    Args:
        declared: `classification` or references to a loss and a metric.
        search_path: folders where user modules are looked up.

    Raises:
        MixbitError: a reference that does not import, or is not callable.
    """
    if declared == "classification":
        return classification()
    loss, metric = load_callable(declared.loss, search_path), load_callable(declared.metric, search_path)
    return user_task(loss, metric, declared.direction, names=(declared.loss, declared.metric))


def classification(label_smoothing: float = 0.0) -> LearningTask:
    """Cross entropy over logits [N, classes] and int64 labels [N]; the metric is top-1, 0 or 1 per picture."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    def top1(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(1) == targets

    return LearningTask(loss, losses, top1, "maximize", is_classification=True)


def smoothed(task: LearningTask, label_smoothing: float) -> LearningTask:
    """The built-in classification with label smoothing in [0, 1) while training; a user's task stays as it is."""
    return classification(label_smoothing) if task.is_classification else task


def user_task(
    loss: Callable[[Tensor, Tensor], Tensor],
    metric: Callable[[Tensor, Tensor], Tensor],
    direction: Literal["maximize", "minimize"],
    names: tuple[str, str] = ("loss", "metric"),
) -> LearningTask:
    """A user's loss and metric, checked on every call; the loss per picture is the loss of a batch of one."""
    loss_name, metric_name = names

    def checked_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = _call(loss, loss_name, outputs, targets)
        if not isinstance(value, Tensor) or value.ndim != 0:
            raise MixbitError(loss_name, "wrong result", expected="a scalar tensor", got=_kind(value))
        if outputs.requires_grad and not value.requires_grad:
            hint = "Compute it from outputs with tensor operations, without detach, item or numpy"
            raise MixbitError(loss_name, "has no gradient", expected="a differentiable scalar", hint=hint)
        return value

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([checked_loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))])

    def checked_metric(outputs: Tensor, targets: Tensor) -> Tensor:
        value = _call(metric, metric_name, outputs, targets)
        if not isinstance(value, Tensor) or value.shape != (len(targets),):
            expected = f"one value per picture, a tensor of shape [{len(targets)}]"
            raise MixbitError(metric_name, "wrong result", expected=expected, got=_kind(value))
        return value

    return LearningTask(checked_loss, losses, checked_metric, direction)


def _call(function: Callable[[Tensor, Tensor], Tensor], name: str, outputs: Tensor, targets: Tensor) -> object:
    try:
        return function(outputs, targets)
    except Exception as error:
        shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)}"
        raise MixbitError(name, f"failed on {shapes}: {type(error).__name__}: {error}") from error


def _kind(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__

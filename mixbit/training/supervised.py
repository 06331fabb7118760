"""Supervised training with the best epoch on val kept; for the float model and for fine-tuning."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixbit.errors import MixbitError
from mixbit.quantizers.lsq import clamp_scales_
from mixbit.training.batches import Pictures
from mixbit.training.channels_last import channels_last
from mixbit.training.evaluate import evaluate
from mixbit.training.fit import Judging, Keeping, fit_
from mixbit.training.optimizer import Schedule
from mixbit.training.task import LearningTask

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def train_supervised_(
    model: nn.Module,
    train: Pictures,
    val: Pictures,
    task: LearningTask,
    schedule: Schedule,
    *,
    checkpoint: Path,
    progress: Callable[[int, int, str], None],
    objective: Objective | None = None,
) -> None:
    """Train in place and end at the epoch that is best on val, in evaluation mode.

    Args:
        model: float or quantized, on the pictures' device.
        train: what gradients come from.
        val: what the best epoch is chosen by.
        task: loss, and the metric that decides.
        schedule: see `Schedule`.
        checkpoint: a folder that survives a kill.
        progress: called with (steps done, steps in all, note).
        objective: (inputs, outputs, targets) -> scalar; the task's loss when None.

    Raises:
        MixbitError: the training diverged; see `fit_`.
    """
    model.train()

    def backward(indices: Tensor, _step: int) -> Tensor:
        inputs, targets = train.at(indices)
        # A user's loss may need the usual order in memory.
        outputs = model(inputs).contiguous()
        loss = task.loss(outputs, targets) if objective is None else objective(inputs, outputs, targets)
        loss.backward()
        return loss

    judging = Judging(lambda: evaluate(model, val.x, val.y, val.info, task), task.direction)
    with channels_last(model, train.at(torch.tensor([0]))[0]):
        fit_(model, schedule, len(train), backward, keeping=Keeping(checkpoint), progress=progress, judging=judging,
             after_step=clamp_scales_)  # fmt: skip
    model.eval()


def distillation(task: LearningTask, teacher: nn.Module, share: float) -> Objective:
    """(1 - share) of the task's loss + share of the divergence from the teacher, KL(teacher || student) on logits.

    In the manner of Hinton et al. 2015 (https://arxiv.org/abs/1503.02531), at temperature 1.

    Args:
        task: with logits [N, classes] as outputs.
        teacher: the float model.
        share: in [0, 1].

    Raises:
        MixbitError: (when called) outputs that are no logits.
    """
    teacher.eval()

    def objective(inputs: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.ndim != 2:
            hint = "Leave distill at 0 for this task"
            raise MixbitError("distill", "outputs", expected="[N, classes]", got=list(outputs.shape), hint=hint)
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(inputs), dim=1)
        given = functional.log_softmax(outputs, dim=1)
        divergence = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (1 - share) * task.loss(outputs, targets) + share * divergence

    return objective


def check_outputs(model: nn.Module, pictures: Pictures, task: LearningTask, where: str) -> None:
    """Refuse a model that cannot name every class, before it is trained.

    Raises:
        MixbitError: built-in classification, and outputs other than [N, num_classes].
    """
    if not task.is_classification:
        return
    model.eval()
    with torch.no_grad():
        outputs = model(pictures.at(torch.tensor([0]))[0])
    expected = [1, pictures.info["num_classes"]]
    if list(outputs.shape) != expected:
        hint = "Set the number of classes in model.arguments"
        raise MixbitError(where, "outputs for one picture", expected=expected, got=list(outputs.shape), hint=hint)


@torch.no_grad()
def reestimate_batchnorm_(model: nn.Module, pictures: Pictures, *, batch_size: int = 128) -> None:
    """Replace every BatchNorm's running statistics by the mean over batches of these pictures; nothing is trained."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative: every batch counts the same
        norm.train()
    for indices in torch.arange(len(pictures)).split(batch_size):
        if len(indices) > 1 or len(pictures) == 1:
            model(pictures.at(indices)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()

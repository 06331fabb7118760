"""Momentum SGD for weights, norms and biases; quantizer scales move by their own rule and rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mixbit.quantizers.lsq import MultiQuantizer, Quantizer

MEAN_DECAY, SQUARE_DECAY, TINY = 0.9, 0.99, 1e-12


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: passes over the pictures.
        batch_size: pictures per step.
        learning_rate: of weights, norms and biases; falls to 0 along a half cosine.
        weight_decay: of weights with two or more dimensions only.
        scale_learning_rate: of quantizer scales, on the same cosine: about the relative change per step.
        momentum: of everything but scales.
        clip_gradient: largest absolute gradient value; None clips nothing.
        seed: of the data order and of dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    scale_learning_rate: float = 0.0
    momentum: float = 0.9
    clip_gradient: float | None = None
    seed: int = 0


class ScaleOptimizer(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980) on ln(scale), without weight decay.

    Our own choice, against LSQ's plain SGD. Step sizes of one network differ by a factor of 100: a rate at which those
    of 2 bit begin to move throws those of 6 bit far away. On the logarithm all move by about the same share of
    themselves, they stay positive, and LSQ's gradient scale 1 / sqrt(N quant_max) cancels.
    """

    def __init__(self, scales: Iterable[nn.Parameter], rate: float) -> None:
        super().__init__([{"params": list(scales), "base_rate": rate}], {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each scale that has a gradient."""
        assert closure is None
        rate = self.param_groups[0]["lr"]
        for scale in self.param_groups[0]["params"]:
            if scale.grad is None:
                continue
            state = self.state[scale]
            if not state:
                zeros = torch.zeros_like(scale)
                state.update(mean=zeros, square=zeros.clone(), weight=torch.zeros(2))
            gradient = scale.grad * scale
            state["mean"].lerp_(gradient, 1 - MEAN_DECAY)
            state["square"].lerp_(gradient.square(), 1 - SQUARE_DECAY)
            # What the decays have gathered so far, 1 - decay^t: the averages began at 0.
            state["weight"].lerp_(torch.ones(2), torch.tensor([1 - MEAN_DECAY, 1 - SQUARE_DECAY]))
            mean, square = (
                state[name] / share for name, share in zip(("mean", "square"), state["weight"].tolist(), strict=True)
            )
            scale.mul_(torch.exp(-rate * mean / (square.sqrt() + TINY)))


def build_optimizers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """SGD over weights (with decay) and norms and biases (without), and the scales' own where there are any."""
    scales = scale_parameters(model)
    known = {id(parameter) for parameter in scales}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group | {"base_rate": schedule.learning_rate} for group in groups if group["params"]]
    sgd = torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=schedule.momentum, foreach=True)
    return [sgd, ScaleOptimizer(scales, schedule.scale_learning_rate)] if scales else [sgd]


def scale_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The learned step sizes of every quantizer."""
    found = (module for module in model.modules() if isinstance(module, Quantizer | MultiQuantizer))
    return [parameter for module in found for parameter in module.parameters()]


def set_rates_(optimizers: Iterable[torch.optim.Optimizer], done: float) -> None:
    """Put every group on its half cosine; `done` in [0, 1] is the share of steps taken."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["base_rate"] * 0.5 * (1.0 + math.cos(math.pi * done))


def drop_unused_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """Forget all-zero gradients, so that momentum and decay leave unused parameters where they are."""
    present = [parameter for parameter in parameters if parameter.grad is not None]
    if not present:
        return
    used = torch.stack([parameter.grad.any() for parameter in present if parameter.grad is not None]).tolist()
    for parameter, keep in zip(present, used, strict=True):
        if not keep:
            parameter.grad = None

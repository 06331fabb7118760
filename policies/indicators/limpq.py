"""LIMPQ: learned step sizes as layer importance (Tang et al. 2022, https://arxiv.org/abs/2203.08368).

All indicators are learned at once in one super-net: each step accumulates the gradients of a uniform pass per
candidate num_bits and of one random assignment (one num_bits per layer, the same for its weight and activation), then
takes one SGD step. The learned step size of (tensor, num_bits) is that entry's harm.

Where this differs from the published code, on purpose:

- BatchNorms follow the layer that feeds them, not the last convolution in module order.
- Step sizes are only kept positive; the published clamp to [1e-5, 1] stops the gradients of larger ones.
- Activations' first step sizes are those of the float model on calibration pictures, for every num_bits at once, not
  of the first training batch. Weights start as published, at max |mean +- 3 std| / 2^(b-1).
- Step sizes have their own learning rate and no weight decay: with LSQ's gradient scale 1 / sqrt(N quant_max) a short
  schedule of plain SGD leaves them at their statistics, so they move on their logarithm by Adam
  (`mixbit.training.optimizer.ScaleOptimizer`). `step_movement` tells how far they came.
- Layers that read one tensor draw their num_bits together, as they share the activation's.
- A harm that falls with fewer bits is raised to that of the next higher num_bits, not forbidden by 1e8.
- One process on one device; the in-place distillation that the code has but switches off is left out.
- A `float` candidate has a pass of its own; its harm is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mixbit import config
from mixbit.entries import run_names
from mixbit.indicators import KINDS, completed, monotone
from mixbit.policy import Entry, NumBits

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from mixbit.training.batches import Pictures
    from mixbit.training.task import LearningTask


INITIAL = True


class Settings(config.Settings):
    """Schedule of the joint training; rates fall to 0 on a half cosine.

    Attributes:
        epochs: passes over the proxy.
        batch_size: pictures per step.
        learning_rate: of weights and BatchNorms.
        scale_learning_rate: of step sizes, about the relative change per step.
        weight_decay: of weights; never of step sizes and BatchNorms.
        label_smoothing: of the built-in classification loss.
        clip_gradient: largest absolute value of an accumulated gradient.
        calibration_pictures: pictures that give activations' first step sizes.
    """

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=0.01, gt=0)
    scale_learning_rate: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=2.5e-5, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    clip_gradient: float = Field(default=1.0, gt=0)
    calibration_pictures: int = Field(default=256, ge=1)


def compute_indicators(
    *,
    model: "nn.Module",
    layers: Mapping[str, Any],
    pictures: "Pictures",
    task: "LearningTask",
    settings: Settings,
    num_bits: Sequence[NumBits],
    searched: Sequence[str],
    seed: int,
    checkpoint: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], "dict[str, Tensor]"]:
    """Train the super-net on the proxy and read its step sizes; arguments and result as the folder's contract says.

    Raises:
        MixbitError: the training diverged, or the model cannot be quantized.
    """
    from mixbit.models.quantize import save_quantized
    from mixbit.models.supernet import build_supernet
    from mixbit.quantizers.lsq import clamp_scales_
    from mixbit.training.batches import calibration_pictures
    from mixbit.training.channels_last import channels_last
    from mixbit.training.fit import Keeping, fit_
    from mixbit.training.optimizer import Schedule
    from mixbit.training.task import smoothed

    calibration = calibration_pictures(pictures, settings.calibration_pictures, seed)
    supernet = build_supernet(model, layers, num_bits, calibration).train()
    steps = [bits for bits in num_bits if bits != "float"]
    first = _step_sizes(supernet, searched, steps)
    training_task = smoothed(task, settings.label_smoothing)

    def backward(indices: "Tensor", step: int) -> "Tensor":
        drawn = assignments(layers, searched, num_bits, seed, step)
        return accumulate_(supernet, *pictures.at(indices), drawn, training_task.loss)

    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        scale_learning_rate=settings.scale_learning_rate,
        weight_decay=settings.weight_decay,
        clip_gradient=settings.clip_gradient,
        seed=seed,
    )
    with channels_last(supernet, calibration[:1]):
        fit_(supernet, schedule, len(pictures), backward, keeping=Keeping(checkpoint), progress=progress,
             after_step=clamp_scales_)  # fmt: skip
    learned = _step_sizes(supernet, searched, steps)
    return _indicators(layers, first, learned) | {
        "cost": _cost(len(pictures), schedule, len(num_bits) + 1)
    }, save_quantized(supernet)


def accumulate_(
    supernet: "fx.GraphModule",
    inputs: "Tensor",
    targets: "Tensor",
    drawn: Sequence[Mapping[str, Entry]],
    loss: "Callable[[Tensor, Tensor], Tensor]",
) -> "Tensor":
    """A pass per assignment; their gradients add up (LIMPQ takes the sum). Returns the mean loss, detached."""
    from mixbit.models.supernet import set_bits_

    total = inputs.new_zeros(())
    for assignment in drawn:
        set_bits_(supernet, assignment)
        value = loss(supernet(inputs).contiguous(), targets)
        value.backward()
        total += value.detach()
    return total / len(drawn)


def assignments(
    layers: Mapping[str, Any], searched: Sequence[str], num_bits: Sequence[NumBits], seed: int, step: int
) -> list[dict[str, Entry]]:
    """One uniform assignment per candidate, from many bits to few, and one random; every layer is named."""
    import torch

    from mixbit.training.batches import stream

    groups = _groups(layers, searched)
    drawn = torch.randint(len(num_bits), (len(groups),), generator=stream(seed, "assignment", step)).tolist()
    random = {name: num_bits[choice] for group, choice in zip(groups, drawn, strict=True) for name in group}
    uniform = [dict.fromkeys(searched, bits) for bits in reversed(num_bits)]
    return [_entries(layers, bits) for bits in [*uniform, random]]


def _groups(layers: Mapping[str, Any], searched: Sequence[str]) -> list[list[str]]:
    """Searched layers that draw together: those that read one tensor."""
    shared = [[name for name in group if name in searched] for group in layers["shared_activations"]]
    within = {name for group in shared for name in group}
    return [group for group in shared if group] + [[name] for name in searched if name not in within]


def _entries(layers: Mapping[str, Any], bits: Mapping[str, NumBits]) -> dict[str, Entry]:
    """Entries of all layers that run; what a float layer reads is float for all who read it."""
    reads_float = {name for group in layers["shared_activations"] if not set(group) <= set(bits) for name in group}
    return {
        name: (bits.get(name, "float"), "float" if name in reads_float else bits.get(name, "float"))
        for name in run_names(layers)
    }


def _step_sizes(supernet: "fx.GraphModule", searched: Sequence[str], num_bits: Sequence[int]) -> dict[str, Any]:
    """By layer, kind and num_bits as text."""
    from mixbit.models.supernet import activation_quantizer, weight_quantizer

    quantizers = {name: (weight_quantizer(supernet, name), activation_quantizer(supernet, name)) for name in searched}
    return {
        name: {
            kind: {str(bits): quantizer.scale(bits).item() for bits in num_bits}
            for kind, quantizer in zip(KINDS, pair, strict=True)
        }
        for name, pair in quantizers.items()
    }


def _indicators(layers: Mapping[str, Any], first: Mapping[str, Any], learned: Mapping[str, Any]) -> dict[str, Any]:
    raw = completed(learned, layers["shared_activations"])
    harm, repairs = monotone(raw)
    initial, _ = monotone(completed(first, layers["shared_activations"]))
    return {
        "layers": harm,
        "raw": raw,
        "repairs": repairs,
        "initial": initial,
        "step_movement": _movement(first, learned),
    }


def _movement(first: Mapping[str, Any], learned: Mapping[str, Any]) -> dict[str, float]:
    """Median |ln(s / s0)| per num_bits over all weights and activations."""
    import math
    import statistics

    moved: dict[str, list[float]] = {}
    for name, kinds in learned.items():
        for kind, row in kinds.items():
            for bits, step_size in row.items():
                moved.setdefault(bits, []).append(abs(math.log(step_size / first[name][kind][bits])))
    return {bits: statistics.median(values) for bits, values in moved.items()}


def _cost(count: int, schedule: Any, passes_per_step: int) -> dict[str, int]:
    from mixbit.training.batches import epoch_batches

    sizes = [len(batch) for batch in epoch_batches(count, schedule.batch_size, schedule.seed, 0)]
    passes = schedule.epochs * len(sizes) * passes_per_step
    samples = schedule.epochs * sum(sizes) * passes_per_step
    return {"forward_passes": passes, "backward_passes": passes, "samples": samples}

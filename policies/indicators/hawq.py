"""HAWQ-V2: average Hessian trace times squared quantization error (Dong et al. 2020, https://arxiv.org/abs/1911.03852).

Harm of (tensor, num_bits) = Tr(H) / n * ||Q(t) - t||^2: H is the Hessian of the mean loss in a weight of n elements;
for an activation, of each picture's loss in the n elements that the picture has there, trace and error being means
over pictures. The error is a sum over elements: some ports take its mean as well and so divide by n twice, which
underrates large layers.

Traces are estimated as the paper does, by Hutchinson: E[v^T H v] = Tr(H) for v of independent +-1, from one product of
the Hessian and v, never the Hessian. What is ours:

- A vector is 0 outside its tensor, and the tensors of a batch share the passes up to the gradient. One vector over all
  tensors would be cheaper and has the same mean, but what it adds between tensors can be many times the trace.
- A tensor gets no more vectors when its trace is known to `tolerance`, by the standard error and not by how little the
  last vector moved the mean, or after `probes`.
- A negative estimate, which a network that is not at a minimum can have, counts by its size.
- A tensor that several layers read is perturbed for these layers only, as its quantizer does. Step sizes minimize the
  squared error.

Weights and activations are in one unit, so `allocation.alpha: 1` takes them at their word.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mixbit import config
from mixbit.errors import MixbitError
from mixbit.indicators import measured, read_together
from mixbit.policy import NumBits

if TYPE_CHECKING:
    from torch import Generator, Tensor, fx, nn

    from mixbit.training.batches import Pictures
    from mixbit.training.kept_numbers import KeptNumbers
    from mixbit.training.task import LearningTask

Key = tuple[str, str]
FEWEST_PROBES = 4  # the standard error of fewer says little


class Settings(config.Settings):
    """What traces are estimated on, and how well.

    Attributes:
        pictures: of the proxy, drawn by seed; all where it has no more.
        batch_size: pictures per product of the Hessian and a vector.
        probes: the most vectors per tensor and batch.
        tolerance: standard error of a trace, as a share of its size, that is good enough.
        calibration_pictures: pictures that give activations' step sizes and errors.
        per_channel: one weight step size per output channel, as in fine-tuning, else one per tensor.
    """

    pictures: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1)
    probes: int = Field(default=32, ge=FEWEST_PROBES)
    tolerance: float = Field(default=0.1, ge=0)
    calibration_pictures: int = Field(default=256, ge=1)
    per_channel: bool = True


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
    """Estimate traces probe by probe; arguments and result as the folder's contract says.

    `traces` says them all with their standard errors, signs kept: of weights by layer, of activations by tensor.

    Raises:
        MixbitError: a trace is NaN or infinite, the loss has no second derivative, or the model cannot be quantized.
    """
    from mixbit.models.one_tensor import build_switchable, tensors_together
    from mixbit.training.kept_numbers import KeptNumbers
    from mixbit.training.sample import inputs_of, sample

    judged = sample(pictures, settings.pictures, seed)
    calibration = inputs_of(sample(pictures, settings.calibration_pictures, seed))
    switchable = build_switchable(model, layers, num_bits, calibration, per_channel=settings.per_channel)
    steps = [bits for bits in num_bits if bits != "float"]
    together = {name: read_together(name, layers["shared_activations"]) for name in searched}
    reads = {name: tensors_together(switchable, together[name]) for name in searched}
    tensors = list(dict.fromkeys(tensor for row in reads.values() for tensor in row))
    wanted = [*(("weight", name) for name in searched), *(("activation", name) for name in tensors)]
    batches = list(zip(inputs_of(judged).split(settings.batch_size), judged.y.split(settings.batch_size), strict=True))

    def probe(number: int, keys: Sequence[Key]) -> list[float]:
        drawn = [
            products(switchable, *one, task=task, wanted=keys, seed=(seed, number, place))
            for place, one in enumerate(batches)
        ]
        return [math.fsum(values) / len(judged) for values in zip(*drawn, strict=True)]

    kept = KeptNumbers(checkpoint, [settings.model_dump(), list(num_bits), list(searched), seed, len(pictures)])
    drawn = _probed(kept, probe, wanted, settings, progress)
    traces = {key: (statistics.fmean(values), _standard_error(values)) for key, values in drawn.items()}
    errors = _weight_errors(switchable, searched, steps) | _activation_errors(switchable, calibration, tensors, steps)
    omega = {key: {b: abs(traces[key][0]) * error for b, error in row.items()} for key, row in errors.items()}
    table = {
        name: {
            "weight": {str(b): omega["weight", name][b] for b in steps},
            "activation": {str(b): sum(omega["activation", tensor][b] for tensor in reads[name]) for b in steps},
        }
        for name in searched
    }
    passes = max(map(len, drawn.values())) * len(batches)
    # One backward pass to the gradients of a batch, and one from each tensor's gradient to its product.
    backward = passes + sum(map(len, drawn.values())) * len(batches)
    cost = {"forward_passes": passes, "backward_passes": backward, "samples": passes * len(judged) // len(batches)}
    return measured(table, layers["shared_activations"]) | {"cost": cost, "traces": _told(traces)}, {}


def products(
    switchable: "fx.GraphModule",
    inputs: "Tensor",
    targets: "Tensor",
    *,
    task: "LearningTask",
    wanted: Sequence[Key],
    seed: tuple[int, ...],
) -> list[float]:
    """v^T H v of each wanted tensor, for one v of independent +-1; H is the Hessian of the sum of pictures' losses.

    Args:
        switchable: from `mixbit.models.one_tensor.build_switchable`, all at `float`.
        inputs: model inputs [N, C, H, W].
        targets: [N].
        task: its loss per picture is differentiated twice.
        wanted: (`weight`, layer) or (`activation`, tensor that layers read).
        seed: of v, together with the tensor's name.
    """
    import torch

    from mixbit.models.one_tensor import branches
    from mixbit.training.batches import stream

    held: dict[Key, Any] = {key: switchable.get_submodule(key[1]).weight for key in wanted if key[0] == "weight"}
    for weight in held.values():
        weight.requires_grad_()
    try:
        with branches(switchable, [name for kind, name in wanted if kind == "activation"]) as read:
            loss = task.losses(switchable(inputs.detach().requires_grad_()).contiguous(), targets).sum()
        points = held | {("activation", name): tensor for name, tensor in read.items()}
        gradients = torch.autograd.grad(
            loss, list(points.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        found = {
            key: _along(gradient, points[key], _signs(points[key], stream("hawq", *seed, *key)))
            for key, gradient in zip(points, gradients, strict=True)
        }
    finally:
        for weight in held.values():
            weight.requires_grad_(requires_grad=False)
    return [found[key] for key in wanted]


def _along(gradient: "Tensor", point: "Tensor", vector: "Tensor") -> float:
    """v^T H v."""
    import torch

    if not gradient.requires_grad:
        return 0.0
    [product] = torch.autograd.grad(
        (gradient * vector).sum(), [point], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return (vector * product).sum(dtype=torch.float64).item()


def _signs(like: "Tensor", generator: "Generator") -> "Tensor":
    import torch

    drawn = torch.randint(2, like.shape, generator=generator, dtype=torch.int8)
    return drawn.to(like.device, like.dtype).mul_(2).sub_(1)


def _probed(
    kept: "KeptNumbers",
    probe: Callable[[int, Sequence[Key]], list[float]],
    wanted: Sequence[Key],
    settings: Settings,
    progress: Callable[[int, int, str], None],
) -> dict[Key, list[float]]:
    """Products by tensor, until each trace is known well enough.

    Raises:
        MixbitError: all of them are 0.
    """
    drawn: dict[Key, list[float]] = {key: [] for key in wanted}
    open_keys = list(wanted)
    for number in range(settings.probes):
        row = kept.row(f"probe {number}", lambda number=number, keys=tuple(open_keys): probe(number, keys))  # type: ignore[misc]
        for key, value in zip(open_keys, row, strict=True):
            drawn[key].append(value)
        if not any(map(any, drawn.values())):
            hint = "Take the indicator fisher or loss_delta"
            raise MixbitError("hawq", "the loss has no second derivative", hint=hint)
        open_keys = [key for key in open_keys if not _settled(drawn[key], settings.tolerance)]
        progress(number + 1, settings.probes, f"{len(wanted) - len(open_keys)} of {len(wanted)} traces known")
        if not open_keys:
            break
    return drawn


def _settled(values: Sequence[float], tolerance: float) -> bool:
    return len(values) >= FEWEST_PROBES and _standard_error(values) <= tolerance * abs(statistics.fmean(values))


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def _weight_errors(switchable: "fx.GraphModule", searched: Sequence[str], steps: Sequence[int]) -> dict[Any, Any]:
    """(`weight`, layer) -> num_bits -> squared error of the weight, by its number of elements."""
    from mixbit.models.one_tensor import change, squared_sum
    from mixbit.models.supernet import weight_quantizer

    found: dict[Any, Any] = {}
    for name in searched:
        weight: Any = switchable.get_submodule(name).weight
        quantizer = weight_quantizer(switchable, name)
        found["weight", name] = {b: squared_sum(change(quantizer, weight, b)) / weight.numel() for b in steps}
    return found


def _activation_errors(
    switchable: "fx.GraphModule", calibration: "Tensor", tensors: Sequence[str], steps: Sequence[int]
) -> dict[Any, Any]:
    """(`activation`, tensor) -> num_bits -> mean squared error of a picture, by its number of elements there."""
    import torch

    from mixbit.models.one_tensor import branches, change, squared_sum, tensor_quantizer

    with torch.no_grad(), branches(switchable, tensors) as read:
        switchable(calibration)
    # numel is pictures times n: the sum's mean over pictures, by n.
    return {
        ("activation", name): {
            b: squared_sum(change(tensor_quantizer(switchable, name), x, b)) / x.numel() for b in steps
        }
        for name, x in read.items()
    }


def _told(traces: Mapping[Key, tuple[float, float]]) -> dict[str, Any]:
    told: dict[str, Any] = {"weight": {}, "activation": {}}
    for (kind, name), (mean, error) in traces.items():
        told[kind][name] = {"trace": mean, "standard_error": error}
    return told

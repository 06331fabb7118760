"""Fisher: squared gradient times squared output error, as NVIDIA ModelOpt scores a format.

ModelOpt (https://github.com/NVIDIA/Model-Optimizer, `AutoQuantizeGradientSearcher`) sums, over the elements of a
layer's output, the square of (gradient of the loss there x error of that output under the format): a Taylor expansion
of the loss whose Hessian is the diagonal of the empirical Fisher matrix. What is ours:

- Weight and activation are scored each alone, the other float; ModelOpt scores formats of both at once. A tensor that
  several layers read has the sum of its readers' scores.
- The gradient is that of each picture's own loss, the sum over elements is not averaged, and pictures are: a score does
  not depend on how many pictures there are or how they are batched.
- Step sizes minimize the squared error.

A network that fits its pictures perfectly has no gradient there, and the scores are noise: give it a proxy that it has
something to lose on. Weights and activations are scored in one unit, so `allocation.alpha: 1` takes them at their word.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mixbit import config
from mixbit.indicators import measured, read_together
from mixbit.policy import NumBits

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from mixbit.training.batches import Pictures
    from mixbit.training.task import LearningTask

Scores = dict[tuple[str, str, int], float]


class Settings(config.Settings):
    """What is scored on.

    Attributes:
        pictures: of the proxy, drawn by seed; all where it has no more.
        batch_size: pictures per pass.
        calibration_pictures: pictures that give activations' step sizes.
        per_channel: one weight step size per output channel, as in fine-tuning, else one per tensor.
    """

    pictures: int = Field(default=1024, ge=1)
    batch_size: int = Field(default=64, ge=1)
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
    """Score batch by batch; arguments and result as the folder's contract says.

    Raises:
        MixbitError: a score is NaN or infinite, or the model cannot be quantized.
    """
    from mixbit.models.one_tensor import build_switchable
    from mixbit.training.channels_last import channels_last
    from mixbit.training.kept_numbers import KeptNumbers
    from mixbit.training.sample import inputs_of, sample

    judged = sample(pictures, settings.pictures, seed)
    calibration = inputs_of(sample(pictures, settings.calibration_pictures, seed))
    switchable = build_switchable(model, layers, num_bits, calibration, per_channel=settings.per_channel)
    kept = KeptNumbers(checkpoint, [settings.model_dump(), list(num_bits), list(searched), seed, len(pictures)])
    steps = [bits for bits in num_bits if bits != "float"]
    groups = {name: read_together(name, layers["shared_activations"])[0] for name in switchable.meta["reads"]}
    firsts = dict.fromkeys(groups[name] for name in searched)
    wanted = [("weight", name, b) for name in searched for b in steps]
    wanted += [("activation", name, b) for name in firsts for b in steps]
    batches = list(zip(inputs_of(judged).split(settings.batch_size), judged.y.split(settings.batch_size), strict=True))

    def row(inputs: "Tensor", targets: "Tensor") -> list[float]:
        found = scores(switchable, inputs, targets, task=task, wanted=wanted, groups=groups)
        return [found[key] for key in wanted]

    with channels_last(switchable, calibration[:1]):
        rows = []
        for done, batch in enumerate(batches, start=1):
            rows.append(kept.row(f"batch {done}", lambda batch=batch: row(*batch)))  # type: ignore[misc]
            progress(done, len(batches), f"batch {done}/{len(batches)}")
    mean = {key: sum(column) / len(judged) for key, column in zip(wanted, zip(*rows, strict=True), strict=True)}
    table = {
        name: {
            "weight": {str(b): mean["weight", name, b] for b in steps},
            "activation": {str(b): mean["activation", groups[name], b] for b in steps},
        }
        for name in searched
    }
    # To compute every layer's output once more under an error is the work of a forward pass.
    passes = 1 + 2 * len(steps)
    cost = {
        "forward_passes": passes * len(batches),
        "backward_passes": len(batches),
        "samples": passes * len(judged),
    }
    return measured(table, layers["shared_activations"]) | {"cost": cost}, {}


def scores(
    switchable: "fx.GraphModule",
    inputs: "Tensor",
    targets: "Tensor",
    *,
    task: "LearningTask",
    wanted: Sequence[tuple[str, str, int]],
    groups: Mapping[str, str],
) -> Scores:
    """Sums over pictures and output elements of (gradient x error)^2, by (kind, layer, num_bits).

    Args:
        switchable: from `mixbit.models.one_tensor.build_switchable`, all at `float`.
        inputs: model inputs [N, C, H, W].
        targets: [N].
        task: its loss per picture is differentiated.
        wanted: which scores; an activation's is called by the first layer of its group.
        groups: layer -> first layer of those that read together with it.
    """
    import torch

    from mixbit.models.one_tensor import change, recorded, squared_sum, tensor_quantizer, without_bias
    from mixbit.models.supernet import weight_quantizer

    with recorded(switchable) as calls:
        outputs = switchable(inputs.requires_grad_())
        loss = task.losses(outputs.contiguous(), targets).sum()
    made = [call.output for call in calls]
    gradients = torch.autograd.grad(loss, made, allow_unused=True, materialize_grads=True)
    found = dict.fromkeys(wanted, 0.0)
    for call, gradient in zip(calls, gradients, strict=True):
        layer: Any = switchable.get_submodule(call.layer)
        of_weight, of_tensor = weight_quantizer(switchable, call.layer), tensor_quantizer(switchable, call.tensor)
        for bits in dict.fromkeys(bits for _, _, bits in wanted):
            if (key := ("weight", call.layer, bits)) in found:
                error = without_bias(layer, call.read, change(of_weight, layer.weight, bits))
                found[key] += squared_sum(gradient * error)
            if (key := ("activation", groups[call.layer], bits)) in found:
                error = without_bias(layer, change(of_tensor, call.read, bits), layer.weight)
                found[key] += squared_sum(gradient * error)
    return found

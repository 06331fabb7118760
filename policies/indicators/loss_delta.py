"""Loss delta: the loss measured with one tensor quantized and all others float. The plain baseline; no paper.

Harm of (tensor, num_bits) = mean loss with that tensor quantized - mean loss of the float model, on the same pictures.
Nothing is trained, and BatchNorms keep the float model's statistics. What a measurement of so small a difference can
do, it does: a loss that falls counts as 0, and a harm that falls with fewer bits is raised to that of the next higher
num_bits; `raw` and `repairs` tell both. Harms of weights and activations are rises of one loss, so they compare as they
are: `allocation.alpha: 1` takes them at their word.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mixbit import config
from mixbit.indicators import measured, read_together
from mixbit.policy import Entry, NumBits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mixbit.training.batches import Pictures
    from mixbit.training.task import LearningTask


class Settings(config.Settings):
    """What is measured on.

    Attributes:
        pictures: of the proxy, drawn by seed; all where it has no more.
        batch_size: pictures per forward pass.
        calibration_pictures: pictures that give activations' step sizes.
        per_channel: one weight step size per output channel, as in fine-tuning, else one per tensor.
    """

    pictures: int = Field(default=1024, ge=1)
    batch_size: int = Field(default=128, ge=1)
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
    """Measure tensor by tensor; arguments and result as the folder's contract says.

    Raises:
        MixbitError: a loss is NaN or infinite, or the model cannot be quantized.
    """
    from mixbit.models.one_tensor import build_switchable
    from mixbit.models.supernet import set_bits_
    from mixbit.training.evaluate import evaluate
    from mixbit.training.kept_numbers import KeptNumbers
    from mixbit.training.sample import inputs_of, sample

    judged = sample(pictures, settings.pictures, seed)
    calibration = sample(pictures, settings.calibration_pictures, seed)
    switchable = build_switchable(model, layers, num_bits, inputs_of(calibration), per_channel=settings.per_channel)
    kept = KeptNumbers(checkpoint, [settings.model_dump(), list(num_bits), list(searched), seed, len(pictures)])
    steps = [bits for bits in num_bits if bits != "float"]
    changes = _changes(layers, searched, steps)

    def loss(assignment: Mapping[str, Entry]) -> list[float]:
        set_bits_(switchable, assignment)
        result = evaluate(switchable, judged.x, judged.y, judged.info, task, batch_size=settings.batch_size)
        set_bits_(switchable, dict.fromkeys(assignment, ("float", "float")))
        return [result.loss]

    [least] = kept.row("float", lambda: loss({}))
    rise: dict[str, float] = {}
    for done, (name, assignment) in enumerate(changes.items(), start=1):
        [value] = kept.row(name, lambda assignment=assignment: loss(assignment))  # type: ignore[misc]
        rise[name] = value - least
        progress(done, len(changes), f"{name} bits: loss {value:+.4f}")
    batches = -(-len(judged) // settings.batch_size)
    passes = 1 + len(changes)
    cost = {"forward_passes": passes * batches, "backward_passes": 0, "samples": passes * len(judged)}
    return measured(_table(layers, searched, steps, rise), layers["shared_activations"]) | {"cost": cost}, {}


def _changes(layers: Mapping[str, Any], searched: Sequence[str], steps: Sequence[int]) -> dict[str, dict[str, Entry]]:
    """Name -> what is quantized: each weight alone, and alone each activation with all layers that read it."""
    changes: dict[str, dict[str, Entry]] = {}
    for name in searched:
        together = read_together(name, layers["shared_activations"])
        for bits in steps:
            changes[_called("weight", name, bits)] = {name: (bits, "float")}
            changes[_called("activation", together[0], bits)] = dict.fromkeys(together, ("float", bits))
    return changes


def _called(kind: str, layer: str, bits: int) -> str:
    return f"{layer} {kind} {bits}"


def _table(layers: Mapping[str, Any], searched: Sequence[str], steps: Sequence[int], rise: Mapping[str, float]) -> Any:
    """By layer, kind and num_bits as text; every reader carries the whole rise of what it reads."""
    first = {name: read_together(name, layers["shared_activations"])[0] for name in searched}
    return {
        name: {
            "weight": {str(bits): rise[_called("weight", name, bits)] for bits in steps},
            "activation": {str(bits): rise[_called("activation", first[name], bits)] for bits in steps},
        }
        for name in searched
    }

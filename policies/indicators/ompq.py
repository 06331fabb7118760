"""OMPQ: layers whose features others already have get fewer bits (Ma et al. 2022, https://arxiv.org/abs/2109.07865).

One forward pass of a few pictures, no labels, no training. Redundancy of layer i = sum over other layers j of
CKA(i, j), how alike their outputs are for these pictures; weight theta_i = exp(-beta * redundancy_i). The paper's
linear program gives bits b_i within [least, most] to maximize sum b_i c_i, c_i = mean of theta_j over j >= i. Where
this differs from the published code, on purpose:

- CKA is the unbiased one: with a few pictures and wide layers the plain one leans towards 1. Below 0 it counts as 0.
- Weights are computed in log space and the largest c is 1: with the published beta of 100 all underflow to 0, with that
  of 1e-9 all are alike. beta is such that the largest theta is `spread` times the smallest, unless given.
- The program is solved exactly over whole bits, with activations, by the allocation that serves every indicator; the
  published code rounds its solution, past the objective or the budget.
- So a layer's importance becomes a harm per num_bits: c_i * (8 - b), which maximizes the same sum. It is linear, so
  bits go to the ends of the candidates; `growth: noise` takes c_i * 4^-b instead, as quantization noise falls.
- Activations, fixed in the paper, count as the layers that read them: a tensor has the sum of its readers' harms.

It is no expected rise of the loss, so 8 bit may have the harm of `float`, which is 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mixbit import config
from mixbit.errors import MixbitError
from mixbit.indicators import measured, read_together
from mixbit.policy import MAX_BITS, NumBits

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from mixbit.training.batches import Pictures
    from mixbit.training.task import LearningTask

FEWEST_PICTURES = 4  # the unbiased estimate divides by n (n - 3)
_COLUMNS = 1 << 16


class Settings(config.Settings):
    """How redundancy becomes harm.

    Attributes:
        pictures: of the proxy, drawn by seed, in one forward pass; all where it has no more.
        beta: how much redundancy counts, or `auto`, with which `spread` decides.
        spread: largest theta by smallest, with `beta: auto`.
        suffix_mean: c_i is the mean of theta from layer i on, as published; else theta_i itself. The mean lets early
            layers inherit the importance of late ones.
        growth: `linear` in bits taken away, as published, or `noise`.
    """

    pictures: int = Field(default=64, ge=FEWEST_PICTURES)
    beta: Literal["auto"] | float = Field(default="auto")
    spread: float = Field(default=10.0, ge=1)
    suffix_mean: bool = True
    growth: Literal["linear", "noise"] = "linear"


def compute_indicators(
    *,
    model: "nn.Module",
    layers: Mapping[str, Any],
    pictures: "Pictures",
    task: "LearningTask",  # noqa: ARG001 - the folder's contract
    settings: Settings,
    num_bits: Sequence[NumBits],
    searched: Sequence[str],
    seed: int,
    checkpoint: Path,  # noqa: ARG001 - one pass, done again after a kill
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], "dict[str, Tensor]"]:
    """Compare the layers' features; arguments and result as the folder's contract says.

    `redundancy` and `importance` say what each layer has, `cka` compares all searched layers, in `searched`'s order.

    Raises:
        MixbitError: fewer than four pictures, NaN or infinity in a feature, or the model cannot be traced.
    """
    from mixbit.models.graph import trace
    from mixbit.training.sample import inputs_of, sample

    judged = inputs_of(sample(pictures, settings.pictures, seed))
    if len(judged) < FEWEST_PICTURES:
        raise MixbitError("ompq", "too few pictures", expected=f"at least {FEWEST_PICTURES}", got=len(judged))
    progress(0, 1, f"{len(judged)} pictures")
    alike = cka(grams(trace(model, layers["input_shape"]), judged, searched))
    redundancy = [sum(max(value, 0.0) for j, value in enumerate(row) if j != i) for i, row in enumerate(alike)]
    importance = dict(zip(searched, weights(redundancy, settings), strict=True))
    steps = [bits for bits in num_bits if bits != "float"]
    table = {name: _harm(name, layers, importance, steps, settings) for name in searched}
    progress(1, 1, "done")
    found = measured(table, layers["shared_activations"])
    found |= {"redundancy": dict(zip(searched, redundancy, strict=True)), "importance": importance, "cka": alike}
    return found | {"cost": {"forward_passes": 1, "backward_passes": 0, "samples": len(judged)}}, {}


def grams(graph: "fx.GraphModule", inputs: "Tensor", names: Sequence[str]) -> list["Tensor"]:
    """Products of the pictures' features with each other, float64 [N, N], of each layer's outputs in all its calls.

    Raises:
        MixbitError: NaN or infinity in a layer's output.
    """
    import torch

    found: dict[str, Tensor] = {}

    def add(name: str) -> Any:
        def hook(_module: Any, _read: Any, output: "Tensor") -> None:
            if not torch.isfinite(output).all():
                raise MixbitError(name, "NaN or infinity in this layer's output", hint="Check the weights and pictures")
            for columns in output.flatten(1).split(_COLUMNS, dim=1):
                features = columns.double()
                found[name] = found.get(name, 0) + features @ features.T

        return hook

    hooks = [graph.get_submodule(name).register_forward_hook(add(name)) for name in names]
    try:
        with torch.no_grad():
            graph(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[name] for name in names]


def cka(found: Sequence["Tensor"]) -> list[list[float]]:
    """Unbiased linear CKA of all pairs, in [-1, 1]; 1 for equal features, expected 0 for independent ones.

    The unbiased HSIC of Song et al. 2012 (https://jmlr.org/papers/v13/song12a.html) is an inner product of Gram
    matrices whose diagonal is left out and whose rows and columns sum to 0, so this is a cosine.

    Args:
        found: Gram matrices [N, N], N >= 4. One of constant features is like none but itself.
    """
    import torch

    flat = torch.stack([_centred(gram).flatten() for gram in found])
    sizes = flat.norm(dim=1, keepdim=True)
    unit = flat / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    alike: list[list[float]] = (unit @ unit.T).clamp_(-1, 1).fill_diagonal_(1).tolist()
    return alike


def _centred(gram: "Tensor") -> "Tensor":
    count = len(gram)
    off = gram.clone().fill_diagonal_(0)
    rows = off.sum(0) / (count - 2)
    return (off - rows - rows[:, None] + rows.sum() / (count - 1)).fill_diagonal_(0)


def weights(redundancy: Sequence[float], settings: Settings) -> list[float]:
    """The paper's c of each layer, by the largest of them; in log space, so that none vanishes that differs by less."""
    widest = max(redundancy) - min(redundancy)
    automatic = math.log(settings.spread) / widest if widest > 0 else 0.0
    beta = automatic if settings.beta == "auto" else settings.beta
    logs = [-beta * value for value in redundancy]
    if settings.suffix_mean:
        logs = [_log_mean(logs[place:]) for place in range(len(logs))]
    return [math.exp(value - max(logs)) for value in logs]


def _log_mean(logs: Sequence[float]) -> float:
    """The logarithm of the mean of exp."""
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logs) / len(logs))


def _harm(
    name: str, layers: Mapping[str, Any], importance: Mapping[str, float], steps: Sequence[int], settings: Settings
) -> dict[str, dict[str, float]]:
    """A layer's rows; of what it reads, the whole tensor's."""
    readers = read_together(name, layers["shared_activations"])
    of_tensor = sum(importance.get(reader, 0.0) for reader in readers)
    grow: Callable[[int], float] = (lambda b: MAX_BITS - b) if settings.growth == "linear" else (lambda b: 4.0**-b)
    return {
        kind: {str(b): value * grow(b) for b in steps}
        for kind, value in (("weight", importance[name]), ("activation", of_tensor))
    }

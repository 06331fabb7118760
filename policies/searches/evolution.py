"""Evolution: policies of a population are measured, the best are mixed and changed.

After the genetic search of BRECQ (Li et al. 2021, https://arxiv.org/abs/2102.05426), whose code was not published; it
looks sensitivities up in a table. Ours differs in what makes it a search of its own:

- Fitness is the measured loss of the network under the whole policy, so what layers do to each other counts. Nothing is
  trained, and BatchNorms keep the float model's statistics.
- What is inherited is not bits but an importance per weight and per tensor read; the exact allocation turns them into
  the policy of least sum of importance * 4^-num_bits within the budget. So every policy keeps all limits and ties and
  spends the budget, and none has to be rejected.
- Equal policies are measured once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from mixbit import config
from mixbit.errors import MixbitError
from mixbit.policy import Entry, NumBits, policy_sha256
from policies.ilp import allocate
from policies.search import Search
from policies.table import Candidate

if TYPE_CHECKING:
    from torch import nn

    from mixbit.training.batches import Pictures
    from mixbit.training.task import LearningTask

Genes = tuple[float, ...]  # ln of the importance of each layer's weight, then of what each layer reads
Policies = dict[str, Entry]


class Settings(config.Settings):
    """The population and what it is measured on.

    Attributes:
        population: policies per generation.
        generations: how often the population is renewed, the first included.
        parents: the best so far, from which the next generation comes.
        mutation: share of importances that a child changes.
        pictures: of the proxy, drawn by seed; all where it has no more.
        batch_size: pictures per forward pass.
        calibration_pictures: pictures that give activations' step sizes.
        per_channel: one weight step size per output channel, as in fine-tuning, else one per tensor.
    """

    population: int = Field(default=32, ge=2)
    generations: int = Field(default=16, ge=1)
    parents: int = Field(default=8, ge=2)
    mutation: float = Field(default=0.1, gt=0, le=1)
    pictures: int = Field(default=512, ge=1)
    batch_size: int = Field(default=128, ge=1)
    calibration_pictures: int = Field(default=256, ge=1)
    per_channel: bool = True

    @model_validator(mode="after")
    def _parents_are_of_the_population(self) -> "Settings":
        if self.parents > self.population:
            raise ValueError(f"expected parents <= population, not {self.parents} and {self.population}")
        return self


def choose(
    *,
    model: "nn.Module",
    layers: Mapping[str, Any],
    pictures: "Pictures",
    task: "LearningTask",
    settings: Settings,
    search: Search,
    seed: int,
    checkpoint: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[Policies, dict[str, Any]]:
    """The best policy of all generations; arguments and result as the folder's contract says.

    Raises:
        MixbitError: no policy fits the budget, a loss is NaN or infinite, or the model cannot be quantized.
    """
    from mixbit.models.one_tensor import build_switchable
    from mixbit.models.supernet import set_bits_
    from mixbit.training.evaluate import evaluate
    from mixbit.training.kept_numbers import KeptNumbers
    from mixbit.training.sample import inputs_of, sample

    judged = sample(pictures, settings.pictures, seed)
    calibration = inputs_of(sample(pictures, settings.calibration_pictures, seed))
    num_bits = sorted({b for row in search.table.values() for entry in row for b in entry if b != "float"})
    switchable = build_switchable(model, layers, num_bits, calibration, per_channel=settings.per_channel)
    kept = KeptNumbers(checkpoint, [settings.model_dump(), seed, len(pictures), dict(search.limits)])
    measured: dict[str, float] = {}

    def measure() -> list[float]:
        return [evaluate(switchable, judged.x, judged.y, judged.info, task, batch_size=settings.batch_size).loss]

    def loss(policy: Policies) -> float:
        name = policy_sha256(policy)
        set_bits_(switchable, policy)
        [measured[name]] = kept.row(name, measure)
        return measured[name]

    best, history = evolve(
        lambda genes: decoded(genes, search), loss, len(search.table), settings, seed=seed, progress=progress
    )
    passes = len(measured) * -(-len(judged) // settings.batch_size)
    cost = {"forward_passes": passes, "backward_passes": 0, "samples": len(measured) * len(judged)}
    return best, {"cost": cost, "loss": history[-1], "losses": history, "measured_policies": len(measured)}


def evolve(
    decode: Callable[[Genes], Policies],
    loss: Callable[[Policies], float],
    count: int,
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Policies, list[float]]:
    """(the policy of least loss, the least loss so far after each generation).

    Args:
        decode: importances -> policy within the budget.
        loss: what a policy loses.
        count: number of layers; importances are twice as many.
        settings: of the population.
        seed: of all drawings.
        progress: called after each policy.
    """
    known: dict[str, tuple[float, Genes, Policies]] = {}
    history: list[float] = []
    total = settings.generations * settings.population
    for generation in range(settings.generations):
        best = _best(known)[: settings.parents]
        for place, genes in enumerate(_generation([genes for _, genes, _ in best], count, settings, seed, generation)):
            policy = decode(genes)
            name = policy_sha256(policy)
            if name not in known:
                known[name] = (loss(policy), genes, policy)
            done = generation * settings.population + place + 1
            progress(done, total, f"generation {generation + 1}: loss {_best(known)[0][0]:.4f}")
        history.append(_best(known)[0][0])
    return _best(known)[0][2], history


def _best(known: Mapping[str, tuple[float, Genes, Policies]]) -> list[tuple[float, Genes, Policies]]:
    """By loss; of equal ones the first found."""
    return sorted(known.values(), key=lambda one: one[0])


def _generation(parents: Sequence[Genes], count: int, settings: Settings, seed: int, generation: int) -> list[Genes]:
    """Children of the parents; without any, equal importances and random ones."""
    import torch

    from mixbit.training.batches import stream

    generator, size = stream(seed, "evolution", generation), (settings.population, 2 * count)
    # A standard deviation is worth one bit, for which 4^-num_bits changes by a factor of 4.
    steps = torch.randn(size, generator=generator, dtype=torch.float64) * math.log(4)
    if not parents:
        steps[0] = 0
        return [tuple(row) for row in steps.tolist()]
    held = torch.tensor(parents, dtype=torch.float64)
    pairs = torch.randint(len(held), (settings.population, 2), generator=generator)
    first = torch.rand(size, generator=generator) < 0.5
    changed = torch.rand(size, generator=generator) < settings.mutation
    children = torch.where(first, held[pairs[:, 0]], held[pairs[:, 1]]) + steps * changed
    return [tuple(row) for row in children.tolist()]


def decoded(genes: Genes, search: Search) -> Policies:
    """The policy of least sum of importance * 4^-num_bits within the budget.

    Raises:
        MixbitError: there is none, or none was found in time.
    """
    table: dict[str, dict[Entry, Candidate]] = {}
    for name, of_weight, of_read in zip(search.table, genes, genes[len(search.table) :], strict=False):
        table[name] = {
            (w, a): (_noise(of_weight, w) + _noise(of_read, a), costs)
            for (w, a), (_, costs) in search.table[name].items()
        }
    found = allocate(table, search.limits, search.ties, search.time_limit_s, search.pairs)
    if not found.policy:
        raise MixbitError("evolution", "no policy fits the budget", hint="Allow more, or smaller num_bits")
    return found.policy


def _noise(gene: float, num_bits: NumBits) -> float:
    # Six digits are enough to tell policies apart, and keep the exact integers of the allocation short.
    return 0.0 if num_bits == "float" else float(f"{math.exp(gene) * 4.0**-num_bits:.6g}")

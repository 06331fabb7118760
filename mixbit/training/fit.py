"""The training loop of every stage: interrupted anywhere and started again, it ends with the same bytes.

Nothing is drawn from a running random state: the order of pictures follows from (seed, epoch), dropout from
(seed, step). What has to be kept is weights, buffers, momentum, the best so far and the position.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixbit.errors import MixbitError
from mixbit.policy import canonical_json
from mixbit.training.batches import epoch_batches, seed_of
from mixbit.training.evaluate import Evaluation
from mixbit.training.memory import kept_memory
from mixbit.training.optimizer import Schedule, build_optimizers, drop_unused_gradients_, set_rates_
from mixbit.training.resume import latest_checkpoint, write_checkpoint

Optimizers = Sequence[torch.optim.Optimizer]
SOONER_AT_EPOCH_ENDS = 10


@dataclass(frozen=True)
class Keeping:
    """Where a run keeps itself and how often.

    Attributes:
        folder: of the checkpoints.
        every_s: seconds between two; a tenth of it is enough where an epoch ends.
        writing_share: most of the time that writing may take; where it is slow, checkpoints become rarer.
    """

    folder: Path
    every_s: float = 10.0
    writing_share: float = 0.05


@dataclass(frozen=True)
class Judging:
    """How the best epoch is found: by the metric, then by lower loss, then the earlier epoch."""

    score: Callable[[], Evaluation]
    direction: str = "maximize"

    def rank(self) -> tuple[tuple[float, float], float]:
        """((higher is better, higher is better), the metric as it is)."""
        result = self.score()
        sign = 1.0 if self.direction == "maximize" else -1.0
        return (sign * result.metric, -result.loss), result.metric


@dataclass
class _Run:
    """What a run is between two steps; with the optimizers' averages, all that a checkpoint holds."""

    step: int = 0
    rank: tuple[float, float] | None = None
    best: Mapping[str, Tensor] = field(default_factory=dict)
    judged: str = ""


@kept_memory()
def fit_(
    model: nn.Module,
    schedule: Schedule,
    count: int,
    backward: Callable[[Tensor, int], Tensor],
    *,
    keeping: Keeping,
    progress: Callable[[int, int, str], None],
    judging: Judging | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train a model in place; with `judging` it ends at its best epoch, otherwise at its last.

    Args:
        model: in training mode; its state_dict is all that is trained and kept.
        schedule: length, rates, clipping and seed.
        count: number of pictures.
        backward: (indices of the batch, step number) -> the loss, a scalar; adds to the gradients.
        keeping: checkpoint folder and rhythm.
        progress: called after each step with (steps done, steps in all, a note with the loss).
        judging: judges the model after each epoch.
        after_step: mutates the model after each step, such as keeping scales positive.

    Raises:
        MixbitError: the loss or a weight became NaN or infinite; the last good checkpoint stays in its folder.
    """
    optimizers = build_optimizers(model, schedule)
    identity = _identity(model, schedule, count)
    run = _restore_(model, optimizers, keeping.folder, identity)
    per_epoch = len(epoch_batches(count, schedule.batch_size, schedule.seed, 0))
    total, kept_at, pause_s = per_epoch * schedule.epochs, time.monotonic(), keeping.every_s
    for epoch in range(run.step // per_epoch, schedule.epochs):
        batches = epoch_batches(count, schedule.batch_size, schedule.seed, epoch)
        for batch in batches[run.step % per_epoch :]:
            where = f"epoch {epoch + 1} of {schedule.epochs}, step {run.step + 1} of {total}"
            set_rates_(optimizers, run.step / total)
            torch.manual_seed(seed_of(schedule.seed, "step", run.step))
            loss = _step_(model, optimizers, partial(backward, batch, run.step), schedule.clip_gradient)
            if after_step is not None:
                after_step(model)
            run.step += 1
            ends = run.step % per_epoch == 0
            due = time.monotonic() - kept_at >= (pause_s / SOONER_AT_EPOCH_ENDS if ends else pause_s)
            if not math.isfinite(loss) or ((ends or due) and not _all_finite(model)):
                raise _diverged(where, loss, schedule, keeping.folder)
            if judging is not None and ends:
                _judge_(run, model, judging)
            if due:
                began = time.monotonic()
                _keep(run, model, optimizers, keeping.folder, identity)
                kept_at = time.monotonic()
                pause_s = max(keeping.every_s, (kept_at - began) / keeping.writing_share)
            progress(run.step, total, f"epoch {epoch + 1}/{schedule.epochs} loss {loss:.4f}{run.judged}")
    if judging is not None:
        model.load_state_dict(run.best)


def _step_(model: nn.Module, optimizers: Optimizers, backward: Callable[[], Tensor], clip: float | None) -> float:
    model.zero_grad(set_to_none=True)
    loss = float(backward().detach())
    if not math.isfinite(loss):
        return loss
    if clip is not None:
        nn.utils.clip_grad_value_(model.parameters(), clip)
    drop_unused_gradients_(model.parameters())
    for optimizer in optimizers:
        optimizer.step()
    return loss


def _judge_(run: _Run, model: nn.Module, judging: Judging) -> None:
    rank, metric = judging.rank()
    run.judged = f" val {metric:.4f}"
    if run.rank is None or rank > run.rank:
        run.rank = rank
        run.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _keep(run: _Run, model: nn.Module, optimizers: Optimizers, folder: Path, identity: str) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in run.best.items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for parameter, held in optimizer.state.items():
            tensors |= {f"{number}/{key}/{names[parameter]}": value for key, value in held.items() if value is not None}
    state: dict[str, Any] = {"identity": identity, "step": run.step, "rank": run.rank, "judged": run.judged}
    write_checkpoint(folder, run.step, tensors, state)


def _restore_(model: nn.Module, optimizers: Optimizers, folder: Path, identity: str) -> _Run:
    found = latest_checkpoint(folder, identity)
    if found is None:
        return _Run()
    tensors, state = found
    model.load_state_dict(_below("model/", tensors))
    parameters = dict(model.named_parameters())
    for number, optimizer in enumerate(optimizers):
        for place, value in _below(f"{number}/", tensors).items():
            key, _, name = place.partition("/")
            # Averages lie beside their parameter and in its order in memory; counts, of another shape, stay on the CPU.
            like = parameters[name].detach()
            beside = value.shape == like.shape
            optimizer.state[parameters[name]][key] = torch.empty_like(like).copy_(value) if beside else value
    rank = None if state["rank"] is None else (state["rank"][0], state["rank"][1])
    return _Run(state["step"], rank, _below("best/", tensors), state["judged"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _identity(model: nn.Module, schedule: Schedule, count: int) -> str:
    """What a checkpoint must have been made by to be taken up here."""
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in model.state_dict().items()}
    return hashlib.sha256(canonical_json([shapes, asdict(schedule), count])).hexdigest()


def _all_finite(model: nn.Module) -> bool:
    with torch.no_grad():
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in model.state_dict().values()]).all())


def _diverged(where: str, loss: float, schedule: Schedule, folder: Path) -> MixbitError:
    what = "a weight became NaN or infinite" if math.isfinite(loss) else f"the loss became {loss}"
    rates = f"learning_rate {schedule.learning_rate:g}"
    if schedule.scale_learning_rate:
        rates += f", scale_learning_rate {schedule.scale_learning_rate:g}"
    kept = f"; the last good checkpoint is kept in {folder}" if any(folder.glob("*.json")) else ""
    return MixbitError(where, what, expected="finite values", hint=f"Try lower rates (now {rates}){kept}")

"""Stage `float_model`: dataset -> float_model.safetensors, trained or from a checkpoint. CPU or GPU, minutes."""

from typing import Literal

from pydantic import Field

from mixbit.config import Settings
from mixbit.experiment import Arguments, Reference, Task, Training, user_modules
from tasks.stage import Work

OUTPUTS = ("float_model.safetensors",)
FACTS = ("torch",)


class Params(Settings):
    """The model and its schedule; `train` is None when the input `checkpoint` gives the weights."""

    factory: Reference
    arguments: Arguments = Field(default={})
    task: Literal["classification"] | Task = "classification"
    train: Training | None = None
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"


def modules(params: Params) -> tuple[str, ...]:
    """The factory's module, and those of a user's loss and metric."""
    return user_modules(params.factory, params.task)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Train, or load; then judge on val."""
    from safetensors.torch import save_file

    from mixbit.models.build import build_model, load_checkpoint_
    from mixbit.models.quantize import save_quantized
    from mixbit.training.batches import read_info, read_pictures
    from mixbit.training.evaluate import evaluate
    from mixbit.training.numerics import fixed_numerics
    from mixbit.training.optimizer import Schedule
    from mixbit.training.supervised import check_outputs, train_supervised_
    from mixbit.training.task import build_task, smoothed

    info = read_info(work.inputs["info"])
    train, val = (read_pictures(work.inputs["dataset"], info, split, params.device) for split in ("train", "val"))
    task = build_task(params.task, work.search_path)
    with fixed_numerics(params.threads, params.device):
        model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).to(params.device)
        if "checkpoint" in work.inputs:
            load_checkpoint_(model, work.inputs["checkpoint"])
        check_outputs(model, val, task, params.factory)
        if params.train is not None:
            schedule = Schedule(
                epochs=params.train.epochs,
                batch_size=params.train.batch_size,
                learning_rate=params.train.learning_rate,
                weight_decay=params.train.weight_decay,
                seed=params.seed,
            )
            training_task = smoothed(task, params.train.label_smoothing)
            train_supervised_(
                model, train, val, training_task, schedule, checkpoint=work.checkpoint, progress=work.progress
            )
        result = evaluate(model, val.x, val.y, info, task)
    save_file(save_quantized(model), work.out / "float_model.safetensors")
    return {"val_metric": result.metric, "val_loss": result.loss}

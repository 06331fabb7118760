"""Stage `finetuned_model`: policy + weights -> finetuned_model.safetensors. CPU or GPU, seconds to hours."""

import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mixbit.config import Settings
from mixbit.experiment import Arguments, Finetune, Reference, Task, user_modules
from mixbit.policy import load_policy
from tasks.stage import Work

if TYPE_CHECKING:
    from torch import fx, nn

    from mixbit.training.batches import Pictures

OUTPUTS = ("finetuned_model.safetensors",)
FACTS = ("torch",)


class Params(Settings):
    """The model and how it is fine-tuned under the policy.

    `finetune: none` calibrates, and re-estimates BatchNorm on the proxy unless every layer is float. Training starts
    from the super-net when that is an input with tensors and `finetune.start` does not say float, otherwise from the
    float model. Last, scales and biases are settled on 16-bit numbers, which is how the deployed
    file holds them.
    """

    factory: Reference
    arguments: Arguments = Field(default={})
    task: Literal["classification"] | Task = "classification"
    finetune: Finetune | Literal["none"]
    calibration_pictures: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"


def modules(params: Params) -> tuple[str, ...]:
    """The factory's module, and those of a user's loss and metric."""
    return user_modules(params.factory, params.task)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Quantize under the policy, fine-tune on train, keep the best on val."""
    import torch
    from safetensors.torch import save_file

    from mixbit.models.build import build_model, load_checkpoint_
    from mixbit.models.quantize import save_quantized
    from mixbit.models.settle import settle_
    from mixbit.training.batches import read_info, read_pictures
    from mixbit.training.evaluate import evaluate
    from mixbit.training.numerics import fixed_numerics
    from mixbit.training.supervised import reestimate_batchnorm_
    from mixbit.training.task import build_task

    info = read_info(work.inputs["info"])
    train, val = (read_pictures(work.inputs["dataset"], info, split, params.device) for split in ("train", "val"))
    proxy = train.subset(torch.tensor(json.loads(work.inputs["proxy"].read_bytes())["indices"]))
    task = build_task(params.task, work.search_path)
    with fixed_numerics(params.threads, params.device):
        model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).to(params.device)
        load_checkpoint_(model, work.inputs["float_model"])
        quantized = _quantized(work, params, model.eval(), proxy)
        if params.finetune != "none":
            _finetune_(quantized, model, (train, val), work, params)
        elif _is_quantized(work):
            reestimate_batchnorm_(quantized, proxy)
        settle_(quantized)
        result = evaluate(quantized, val.x, val.y, info, task)
    save_file(save_quantized(quantized), work.out / "finetuned_model.safetensors")
    return {"val_metric": result.metric, "val_loss": result.loss}


def _is_quantized(work: Work) -> bool:
    policy = load_policy(work.inputs["policy"].read_bytes(), "policy.json")
    return any(bits != "float" for entry in policy.values() for bits in entry)


def _quantized(work: Work, params: Params, model: "nn.Module", proxy: "Pictures") -> "fx.GraphModule":
    """The network under the policy, calibrated on the proxy, warm from the super-net where there is one."""
    import copy

    from safetensors.torch import load_file

    from mixbit.models.quantize import build_quantized
    from mixbit.models.warm_start import plain_weights, warm_start_
    from mixbit.training.batches import calibration_pictures

    policy = load_policy(work.inputs["policy"].read_bytes(), "policy.json")
    layers = json.loads(work.inputs["layers"].read_bytes())
    calibration = calibration_pictures(proxy, params.calibration_pictures, params.seed)
    per_channel = params.finetune == "none" or params.finetune.per_channel
    from_float = params.finetune != "none" and params.finetune.start == "float"
    warm = "supernet" in work.inputs and not from_float
    supernet = load_file(work.inputs["supernet"], device=params.device) if warm else {}
    if not supernet:
        return build_quantized(model, layers, policy, calibration, per_channel)
    start = copy.deepcopy(model)
    # Modules that forward never runs are in no super-net; they stay as they are.
    start.load_state_dict({**start.state_dict(), **plain_weights(supernet, layers["batchnorms"], policy)})
    quantized = build_quantized(start, layers, policy, calibration, per_channel)
    warm_start_(quantized, supernet, policy)
    return quantized


def _finetune_(
    quantized: "fx.GraphModule",
    teacher: "nn.Module",
    splits: "tuple[Pictures, Pictures]",
    work: Work,
    params: Params,
) -> None:
    from mixbit.training.optimizer import Schedule
    from mixbit.training.supervised import distillation, train_supervised_
    from mixbit.training.task import build_task

    finetune = params.finetune
    assert finetune != "none"
    task = build_task(params.task, work.search_path)
    schedule = Schedule(
        epochs=finetune.epochs,
        batch_size=finetune.batch_size,
        learning_rate=finetune.learning_rate,
        scale_learning_rate=finetune.scale_learning_rate,
        weight_decay=finetune.weight_decay,
        seed=params.seed,
    )
    objective = distillation(task, teacher, finetune.distill) if finetune.distill else None
    train_supervised_(
        quantized, *splits, task, schedule, checkpoint=work.checkpoint, progress=work.progress, objective=objective
    )

"""Stage `indicators`: float model + proxy -> indicators.json, supernet.safetensors. CPU or GPU, the longest stage."""

import json
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mixbit.config import Settings
from mixbit.entries import excluding, searched_layers
from mixbit.experiment import Arguments, Bits, Name, Reference, Task, user_modules
from mixbit.indicators import check_table
from mixbit.load import load_method
from mixbit.policy import canonical_json
from tasks.stage import Work

OUTPUTS = ("indicators.json", "supernet.safetensors")
FACTS = ("torch",)
METHODS = "policies.indicators"


class Params(Settings):
    """The model, the method with all its settings, and which layers stay float meanwhile.

    `fixed_layers: limpq` keeps the first and the last layer float; `excluded` are patterns of layers that stay float.
    """

    factory: Reference
    arguments: Arguments = Field(default={})
    task: Literal["classification"] | Task = "classification"
    method: Name = "limpq"
    num_bits: tuple[Bits, ...]
    settings: Arguments = Field(default={}, validate_default=True)
    fixed_layers: Literal["limpq", "none"] = "limpq"
    excluded: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"

    @field_validator("settings")
    @classmethod
    def _all_settings(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """The method's defaults are filled in, so that the key says them all."""
        if "method" not in info.data:
            return value
        settings: Settings = load_method(METHODS, info.data["method"]).Settings.model_validate(value)
        return settings.model_dump(mode="json")


def modules(params: Params) -> tuple[str, ...]:
    """The method, the factory's module, and those of a user's loss and metric."""
    return (f"{METHODS}.{params.method}", *user_modules(params.factory, params.task))


def compute(work: Work, params: Params) -> dict[str, float]:
    """Ask the method, check its answer, write it."""
    import torch
    from safetensors.torch import save_file

    from mixbit.models.build import build_model, load_checkpoint_
    from mixbit.training.batches import read_info, read_pictures
    from mixbit.training.numerics import fixed_numerics
    from mixbit.training.task import build_task

    method = load_method(METHODS, params.method)
    info, layers = read_info(work.inputs["info"]), json.loads(work.inputs["layers"].read_bytes())
    proxy = torch.tensor(json.loads(work.inputs["proxy"].read_bytes())["indices"])
    pictures = read_pictures(work.inputs["dataset"], info, "train", params.device).subset(proxy)
    searched = searched_layers(layers, params.fixed_layers, excluding(params.excluded))
    with fixed_numerics(params.threads, params.device):
        model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).to(params.device)
        load_checkpoint_(model, work.inputs["float_model"])
        indicators, tensors = method.compute_indicators(
            model=model.eval(),
            layers=layers,
            pictures=pictures,
            task=build_task(params.task, work.search_path),
            settings=method.Settings.model_validate(params.settings),
            num_bits=params.num_bits,
            searched=searched,
            seed=params.seed,
            checkpoint=work.checkpoint,
            progress=work.progress,
        )
    check_table(indicators["layers"], searched, params.num_bits, params.method)
    content = {"method": params.method, "num_bits": list(params.num_bits), **indicators}
    (work.out / "indicators.json").write_bytes(canonical_json(content))
    save_file(tensors, work.out / "supernet.safetensors")
    moved = {f"step_movement_{bits}_bits": value for bits, value in indicators["step_movement"].items()}
    return {"layers": float(len(searched)), "repairs": float(len(indicators["repairs"])), **moved}

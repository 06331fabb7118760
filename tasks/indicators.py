"""Stage `indicators`: float model + proxy -> indicators.json, supernet.safetensors. CPU or GPU, the longest stage.

With the input `file`, a table of the user's own: layers + file, in a moment.
"""

import json
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mixbit.config import Settings
from mixbit.entries import Layers, excluding, run_names, searched_layers
from mixbit.errors import MixbitError
from mixbit.experiment import Arguments, Bits, Method, Reference, Task, is_reference, user_modules
from mixbit.indicators import check_table, monotone
from mixbit.load import load_method
from mixbit.own_indicators import NONE_SPENT, ask_own, checked_rows, own_table
from mixbit.policy import canonical_json
from tasks.stage import Work

OUTPUTS = ("indicators.json", "supernet.safetensors")
FACTS = ("torch",)
METHODS = "policies.indicators"
GIVEN = "file"


class Params(Settings):
    """The model, the method with all its settings, and which layers stay float meanwhile.

    `method` is a file of policies/indicators, `module:callable` of the user's, or `file` for a given table, which
    depends on no model. `fixed_layers: limpq` keeps the first and the last layer float; `excluded` are patterns of
    layers that stay float.
    """

    factory: Reference | None = None
    arguments: Arguments = Field(default={})
    task: Literal["classification"] | Task = "classification"
    method: Method = "limpq"
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
        """Our methods' defaults are filled in, so that the key says them all; a user's module is in the key itself."""
        if "method" not in info.data or info.data["method"] == GIVEN or is_reference(info.data["method"]):
            return value
        settings: Settings = load_method(METHODS, info.data["method"]).Settings.model_validate(value)
        return settings.model_dump(mode="json")

    @model_validator(mode="after")
    def _a_model_unless_given(self) -> "Params":
        if (self.factory is None) != (self.method == GIVEN):
            raise ValueError("expected factory, unless a table is given")
        return self


def modules(params: Params) -> tuple[str, ...]:
    """The method, the factory's module, and those of a user's loss and metric."""
    if params.factory is None:
        return ()
    own = is_reference(params.method)
    method = params.method.partition(":")[0] if own else f"{METHODS}.{params.method}"
    return (method, *user_modules(params.factory, params.task))


def given_table(content: bytes, layers: Layers, params: Params, where: str = "indicator file") -> dict[str, Any]:
    """Harm by layer, kind and num_bits from a user's file.

    Raises:
        MisuseError: as `mixbit.own_indicators.own_table`; ConfigError where there are several faults.
    """
    searched = searched_layers(layers, params.fixed_layers, excluding(params.excluded))
    return own_table(content, run_names(layers), searched, params.num_bits, where)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Ask the method, check its answer, write it."""
    from safetensors.torch import save_file

    layers = json.loads(work.inputs["layers"].read_bytes())
    searched = searched_layers(layers, params.fixed_layers, excluding(params.excluded))
    if params.method == GIVEN:
        raw = given_table(work.inputs[GIVEN].read_bytes(), layers, params)
        harm, repairs = monotone(raw)
        indicators: dict[str, Any] = {"layers": harm, "raw": raw, "repairs": repairs, "cost": NONE_SPENT}
        tensors: dict[str, Any] = {}
    else:
        indicators, tensors = _asked(work, params, layers, searched)
    indicators = {"step_movement": {}, "repairs": []} | indicators
    check_table(indicators["layers"], searched, params.num_bits, params.method)
    content = {**indicators, "method": params.method, "num_bits": list(params.num_bits)}
    (work.out / "indicators.json").write_bytes(canonical_json(content))
    save_file(tensors, work.out / "supernet.safetensors")
    moved = {f"step_movement_{bits}_bits": value for bits, value in indicators["step_movement"].items()}
    return {"layers": float(len(searched)), "repairs": float(len(indicators["repairs"])), **moved}


def _asked(work: Work, params: Params, layers: Layers, searched: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The method's answer for the float model and the proxy."""
    import torch

    from mixbit.models.build import build_model, load_checkpoint_
    from mixbit.training.batches import read_info, read_pictures
    from mixbit.training.numerics import fixed_numerics
    from mixbit.training.task import build_task

    assert params.factory is not None
    info = read_info(work.inputs["info"])
    proxy = torch.tensor(json.loads(work.inputs["proxy"].read_bytes())["indices"])
    with fixed_numerics(params.threads, params.device):
        model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).to(params.device)
        load_checkpoint_(model, work.inputs["float_model"])
        given = {
            "model": model.eval(),
            "layers": layers,
            "pictures": read_pictures(work.inputs["dataset"], info, "train", params.device).subset(proxy),
            "task": build_task(params.task, work.search_path),
            "num_bits": params.num_bits,
            "searched": searched,
            "seed": params.seed,
            "checkpoint": work.checkpoint,
            "progress": work.progress,
        }
        if is_reference(params.method):
            return _own(ask_own(params.method, work.search_path, params.settings, **given), layers, params, searched)
        method = load_method(METHODS, params.method)
        indicators, tensors = method.compute_indicators(
            settings=method.Settings.model_validate(params.settings), **given
        )
    return indicators, tensors


def _own(answer: tuple[Any, Any], layers: Layers, params: Params, searched: list[str]) -> tuple[Any, Any]:
    """A user's answer, in the form that ours have.

    Raises:
        ConfigError: faults of its table, by layer and kind.
        MixbitError: what is no JSON, and tensors that are none.
    """
    import torch

    indicators, tensors = answer
    rows = checked_rows(indicators["layers"], run_names(layers), searched, params.num_bits, params.method)
    wrong = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if wrong:
        raise MixbitError(params.method, f"{wrong[0]} of its second result", expected="a tensor")
    try:
        told = json.loads(canonical_json({"raw": rows, **indicators, "layers": rows}))
    except (TypeError, ValueError) as error:
        raise MixbitError(params.method, f"its first result is no JSON: {error}") from None
    return {"cost": NONE_SPENT, **told}, dict(tensors)

"""Stage `searched_policy`: float model + proxy -> policy.json, choice.json, measured. CPU or GPU, minutes."""

import json
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mixbit.config import Settings
from mixbit.entries import check_groups
from mixbit.experiment import Arguments, Name, Reference, Task, user_modules
from mixbit.load import load_method
from mixbit.policy import canonical_json, dump_policy
from tasks import policy as search_stage
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("torch", *search_stage.FACTS)
METHODS = "policies.searches"


class Params(Settings):
    """The model, the method with all its settings, and the search: candidates, budget, groups and rules.

    Of the search, alpha does not count: there are no indicators to weigh.
    """

    factory: Reference
    arguments: Arguments = Field(default={})
    task: Literal["classification"] | Task = "classification"
    method: Name
    settings: Arguments = Field(default={}, validate_default=True)
    search: search_stage.Params
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
    """Ask the method for a policy within the budget; write it and why it was chosen."""
    import torch

    from mixbit.models.build import build_model, load_checkpoint_
    from mixbit.training.batches import read_info, read_pictures
    from mixbit.training.numerics import fixed_numerics
    from mixbit.training.task import build_task

    method = load_method(METHODS, params.method)
    info, layers = read_info(work.inputs["info"]), json.loads(work.inputs["layers"].read_bytes())
    check_groups(params.search.groups, layers)
    search = search_stage.search_of(params.search, layers)
    proxy = torch.tensor(json.loads(work.inputs["proxy"].read_bytes())["indices"])
    pictures = read_pictures(work.inputs["dataset"], info, "train", params.device).subset(proxy)
    with fixed_numerics(params.threads, params.device):
        model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).to(params.device)
        load_checkpoint_(model, work.inputs["float_model"])
        policy, evidence = method.choose(
            model=model.eval(),
            layers=layers,
            pictures=pictures,
            task=build_task(params.task, work.search_path),
            settings=method.Settings.model_validate(params.settings),
            search=search,
            seed=params.seed,
            checkpoint=work.checkpoint,
            progress=work.progress,
        )
    choice = {"status": "searched", "method": params.method, "search": evidence}
    choice |= {"budget": search.limits, "requested": params.search.budget, **search_stage.described(policy, layers)}
    (work.out / "policy.json").write_bytes(dump_policy(policy))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    return search_stage.figures(choice)

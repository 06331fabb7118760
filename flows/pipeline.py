"""The picture: which stage reads what. `run` and `plan` walk this same body, so they can't disagree."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from flows.declaration import Declared
from flows.parameters import Parameters, parameters
from mixbit.experiment import Data, Proxy
from tasks.baseline import reads_indicators


class Outputs(Protocol):
    """What a cell gives: artifacts by file name."""

    def __getitem__(self, file: str) -> Any:
        """The artifact of an output file."""
        ...


class Stage(Protocol):
    """Runs, or only plans, one cell."""

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Outputs:
        """The outputs of stage `name`; an input that is None is left out."""
        ...

    def source(self, of: str | Data | Proxy) -> Any:
        """The file or folder that DVC or the user made; None where there is none."""
        ...

    def agrees(self, layers: Any, p: Parameters) -> None:
        """Refuse what the file says of layers and the network does not have, once the layers are known."""
        ...

    def file(self, key: str) -> Any:
        """The file at a key path of the experiment; None where it names none."""
        ...


@dataclass(frozen=True)
class Variant:
    """One policy on its way to devices."""

    policy: Outputs
    finetuned_model: Outputs
    deployable: Outputs | None = None
    profiles: dict[str, Outputs] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Every cell of one experiment; `baselines` by budget and name."""

    dataset: Outputs
    proxy: Outputs
    layers: Outputs
    float_model: Outputs
    indicators: Outputs | None
    references: dict[str, Variant]
    budgets: dict[str, Variant]
    baselines: dict[str, dict[str, Variant]]


def pipeline(declared: Declared, stage: Stage) -> Results:
    """Dataset, layers, proxy; float_model; indicators; per budget policy, finetuned_model, deployable, profile."""
    source, manifest = stage.source(declared.experiment.data), stage.source(declared.experiment.proxy)
    p = parameters(declared)
    dataset = stage("dataset", p.dataset, source=source)
    data = {"dataset": dataset["dataset.safetensors"], "info": dataset["dataset_info.json"]}
    layers = stage("layers", p.layers, info=data["info"])
    stage.agrees(layers["layers.json"], p)
    proxy = stage("proxy", p.proxy, **data, manifest=manifest)
    float_model = stage("float_model", p.float_model, **data, checkpoint=stage.file("model.checkpoint"))
    data |= {"proxy": proxy["proxy.json"], "layers": layers["layers.json"]}
    data |= {"float_model": float_model["float_model.safetensors"]}
    indicators = stage("indicators", p.indicators, **data) if p.indicators else None
    harm = {"indicators": indicators["indicators.json"]} if indicators else {}
    supernet = {"supernet": indicators["supernet.safetensors"]} if indicators and p.warm_start else {}

    cells = _Cells(stage, p, data, supernet)
    given = {"layers": data["layers"], "file": stage.file("policy"), **harm}
    # All budgets are solved first: one that no policy fits is known before anything is fine-tuned.
    policies = {name: stage("policy", params, name, **given) for name, params in p.policies.items()}
    references = {name: cells.reference(name) for name in p.references}
    budgets: dict[str, Variant] = {}
    for name, policy in policies.items():
        model = cells.finetuned_model(name, policy)
        deployable = cells.deployable(name, policy, model)
        profiles = {device: cells.profile(name, device, deployable, references) for device in p.profiles}
        budgets[name] = Variant(policy, model, deployable, profiles)
    baselines = {
        name: {
            method: cells.baseline(name, method, {**harm, "policy": variant.policy["policy.json"]})
            for method in p.baselines[name]
        }
        for name, variant in budgets.items()
    }
    return Results(dataset, proxy, layers, float_model, indicators, references, budgets, baselines)


@dataclass(frozen=True)
class _Cells:
    """The cells that every policy goes through; `data` is what all of them read."""

    stage: Stage
    p: Parameters
    data: dict[str, Any]
    supernet: dict[str, Any]

    def finetuned_model(self, tag: str, policy: Outputs) -> Outputs:
        given = {**self.data, **self.supernet, "policy": policy["policy.json"]}
        return self.stage("finetuned_model", self.p.finetuned_model, tag, **given)

    def deployable(self, tag: str, policy: Outputs, model: Outputs) -> Outputs:
        given = {name: self.data[name] for name in ("dataset", "info", "layers")}
        made = {"policy": policy["policy.json"], "finetuned_model": model["finetuned_model.safetensors"]}
        return self.stage("deployable", self.p.deployable, tag, **given, **made)

    def profile(self, tag: str, device: str, deployable: Outputs, references: dict[str, Variant]) -> Outputs:
        given = {
            f"{name}_reference": one.deployable["packed.onnx"] for name, one in references.items() if one.deployable
        }
        given |= {"packed": deployable["packed.onnx"], "info": self.data["info"]}
        return self.stage("profile", self.p.profiles[device], f"{tag} {device}", **given)

    def reference(self, name: str) -> Variant:
        """Float or W8A8 of the same network: what latency and size are compared with."""
        policy = self.stage("baseline", self.p.references[name], name, layers=self.data["layers"])
        model = self.stage("finetuned_model", self.p.untuned, name, **self.data, policy=policy["policy.json"])
        return Variant(policy, model, self.deployable(name, policy, model))

    def baseline(self, budget: str, method: str, given: dict[str, Any]) -> Variant:
        """What a policy has to beat, fine-tuned alike; neither exported nor registered."""
        tag, params = f"{budget}-{method}", self.p.baselines[budget][method]
        read = given if reads_indicators(method) else {"policy": given["policy"]}
        policy = self.stage("baseline", params, tag, layers=self.data["layers"], **read)
        return Variant(policy, self.finetuned_model(tag, policy))

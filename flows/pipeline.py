"""The picture: which stage reads what. `run` and `plan` walk this same body, so they can't disagree."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from flows.declaration import Declared
from flows.parameters import Parameters, baselines, parameters
from flows.smallest import Try, Walk, drop, range_of, walk
from mixbit.devices.device import dialect_of
from mixbit.devices.remote import DeviceFault
from mixbit.dialects import file_name
from mixbit.experiment import Data, Proxy, Smallest
from mixbit.latency import device_of
from tasks import policy as search_stage
from tasks.baseline import Params as BaselineParams
from tasks.baseline import reads_indicators
from tasks.measured_policy import Params as MeasuredParams


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

    def content(self, artifact: Any) -> Any:
        """What a JSON artifact says; None before a run has made it."""
        ...

    def figures(self, outputs: Any) -> Mapping[str, float] | None:
        """The figures of a cell; None before a run has made it."""
        ...


@dataclass(frozen=True)
class Variant:
    """One policy on its way to devices; `search` is the cell of its candidates where a device chose among them."""

    policy: Outputs
    finetuned_model: Outputs
    deployable: Outputs | None = None
    profiles: dict[str, Outputs] = field(default_factory=dict)
    search: Outputs | None = None


@dataclass(frozen=True)
class Results:
    """Every cell of one experiment; `baselines` by budget and name, `walks` by budget, `latency_tables` by device."""

    dataset: Outputs
    proxy: Outputs
    layers: Outputs
    float_model: Outputs
    indicators: Outputs | None
    references: dict[str, Variant]
    budgets: dict[str, Variant]
    baselines: dict[str, dict[str, Variant]]
    walks: dict[str, Walk]
    latency_tables: dict[str, Outputs]


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
    table = stage.file("indicators.file")
    judged = {"layers": data["layers"], "file": table} if table else data
    indicators = stage("indicators", p.indicators, **judged) if p.indicators else None
    harm = {"indicators": indicators["indicators.json"]} if indicators else {}
    supernet = {"supernet": indicators["supernet.safetensors"]} if indicators and p.warm_start else {}

    about = {"layers": data["layers"], "info": data["info"]}
    asked = {device: partial(stage, "latency_table", one, device, **about) for device, one in p.latency_tables.items()}
    tables = _delivered(asked)
    cells = _Cells(stage, p, data, supernet, harm, tables)
    # All budgets are solved first: one that no policy fits is known before anything is fine-tuned.
    searched = {name: cells.policy(name, params) for name, params in p.policies.items() if cells.can_search(params)}
    wanted = {name: one for name, one in p.measured_policies.items() if name in searched}
    measured = _delivered({name: partial(cells.measured_policy, name, searched[name], wanted[name]) for name in wanted})
    policies = {name: one for name, one in (searched | measured).items() if name in measured or name not in wanted}
    references = {name: cells.reference(name) for name in p.references}
    budgets = {
        name: replace(
            cells.variant(name, policy, cells.finetuned_model(name, policy), references),
            search=searched[name] if name in measured else None,
        )
        for name, policy in policies.items()
    }
    searches, walks = dict(p.policies), {name: cells.walk(name, one, float_model) for name, one in p.smallest.items()}
    for name, tried in walks.items():
        if (found := tried.end) is not None:
            searches[name] = p.search.model_copy(update={"budget": {tried.wanted.cost: found.limit}})
            budgets[name] = cells.variant(name, found.policy, found.finetuned_model, references)
    compared = {
        name: {
            method: cells.baseline(f"{name}-{method}", params, variant.policy)
            for method, params in baselines(declared, searches[name]).items()
        }
        for name, variant in budgets.items()
    }
    return Results(dataset, proxy, layers, float_model, indicators, references, budgets, compared, walks, tables)


def _delivered(asked: Mapping[str, Callable[[], Outputs]]) -> dict[str, Outputs]:
    """What devices deliver; what one does not, and all that needs it, is left out, and everything else goes on."""
    found = {}
    for name, ask in asked.items():
        with suppress(DeviceFault):
            found[name] = ask()
    return found


@dataclass(frozen=True)
class _Cells:
    """The cells that every policy goes through; `data` is what all of them read."""

    stage: Stage
    p: Parameters
    data: dict[str, Any]
    supernet: dict[str, Any]
    harm: dict[str, Any]
    tables: dict[str, Outputs]

    def policy(self, tag: str, params: search_stage.Params) -> Outputs:
        if self.p.direct is not None:
            direct = self.p.direct.model_copy(update={"search": params})
            return self.stage("searched_policy", direct, tag, **self.data)
        given = {"layers": self.data["layers"], "file": self.stage.file("policy"), **self.searched(params)}
        return self.stage("policy", params, tag, **given)

    def can_search(self, params: search_stage.Params) -> bool:
        """Whether every device that the budget names has delivered its table."""
        return all(device_of(cost) in {None, *self.tables} for cost in params.budget)

    def searched(self, params: search_stage.Params) -> dict[str, Any]:
        """What a search reads of harm and latency."""
        named = [device for cost in params.budget if (device := device_of(cost)) is not None]
        tables = {f"{search_stage.TABLE}{device}": self.tables[device]["latency_table.json"] for device in named}
        return self.harm | tables

    def measured_policy(self, tag: str, found: Outputs, params: MeasuredParams) -> Outputs:
        """Of a search's candidates the one that devices choose."""
        given = {name: self.data[name] for name in ("layers", "info")}
        return self.stage("measured_policy", params, tag, choice=found["choice.json"], **given)

    def finetuned_model(self, tag: str, policy: Outputs) -> Outputs:
        given = {**self.data, **self.supernet, "policy": policy["policy.json"]}
        return self.stage("finetuned_model", self.p.finetuned_model, tag, **given)

    def variant(self, tag: str, policy: Outputs, model: Outputs, references: dict[str, Variant]) -> Variant:
        """A budget's policy, exported and on every device."""
        deployable = self.deployable(tag, policy, model)
        profiles = {device: self.profile(tag, device, deployable, references) for device in self.p.profiles}
        there = {device: outputs for device, outputs in profiles.items() if outputs is not None}
        return Variant(policy, model, deployable, there)

    def deployable(self, tag: str, policy: Outputs, model: Outputs) -> Outputs:
        given = {name: self.data[name] for name in ("dataset", "info", "layers")}
        made = {"policy": policy["policy.json"], "finetuned_model": model["finetuned_model.safetensors"]}
        return self.stage("deployable", self.p.deployable, tag, **given, **made)

    def profile(self, tag: str, device: str, deployable: Outputs, references: dict[str, Variant]) -> Outputs | None:
        """None where a device did not deliver: nothing else depends on it, so everything else goes on."""
        dialect = dialect_of(device)
        file = file_name(dialect)
        given = {f"{name}_reference": one.deployable[file] for name, one in references.items() if one.deployable}
        given |= {dialect: deployable[file], "info": self.data["info"]}
        profile = partial(self.stage, "profile", self.p.profiles[device], f"{tag} {device}", **given)
        return _delivered({device: profile}).get(device)

    def reference(self, name: str) -> Variant:
        """Float or W8A8 of the same network: what latency and size are compared with."""
        policy = self.stage("baseline", self.p.references[name], name, layers=self.data["layers"])
        model = self.stage("finetuned_model", self.p.untuned, name, **self.data, policy=policy["policy.json"])
        return Variant(policy, model, self.deployable(name, policy, model))

    def baseline(self, tag: str, params: BaselineParams, policy: Outputs) -> Variant:
        """What a policy has to beat, fine-tuned alike; neither exported nor registered."""
        given = {"layers": self.data["layers"], "policy": policy["policy.json"]}
        given |= self.searched(params.search) if params.search and reads_indicators(params.method) else {}
        made = self.stage("baseline", params, tag, **given)
        return Variant(made, self.finetuned_model(tag, made))

    def walk(self, name: str, wanted: Smallest, float_model: Outputs) -> Walk:
        """Policies and their fine-tuned networks until the smallest good one is known; none before `layers` has run."""
        layers = self.stage.content(self.data["layers"])
        between = None if layers is None else range_of(layers, self.p.search, wanted.cost)
        reference = self.stage.figures(float_model)

        def attempt(number: int, limit: int) -> Try:
            tag = f"{name}-{number}"
            policy = self.policy(tag, self.p.search.model_copy(update={"budget": {wanted.cost: limit}}))
            model = self.finetuned_model(tag, policy)
            costs, figures = self.stage.figures(policy), self.stage.figures(model)
            if reference is None or costs is None or figures is None:
                return Try(number, limit, policy, model)
            fell = drop(reference, figures, task=self.p.finetuned_model.task)
            return Try(number, limit, policy, model, costs[wanted.cost], fell)

        return walk(wanted, between, attempt)

"""What a report and the closing table are made of: plain data from the stages' artifacts and figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["reference", "budget", "baseline"]


@dataclass(frozen=True)
class Measured:
    """A figure with its standard error where there is one."""

    value: float
    standard_error: float | None = None


@dataclass(frozen=True)
class Profile:
    """One file on one device: the figures of the `profile` stage, and profile.json where there is one."""

    figures: Mapping[str, float]
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slower_in_int8(self) -> tuple[str, ...]:
        """Layers whose float kernels are quicker, most first: `features.3.conv (depthwise, 1.3x)`."""
        layers, lost = self.content.get("layers", {}), self.content.get("slower_in_int8", {})
        kinds = {name: "depthwise, " if layers[name].get("depthwise") else "" for name in lost}
        return tuple(
            f"{name} ({kinds[name]}{ratio:.1f}x)" for name, ratio in sorted(lost.items(), key=lambda item: -item[1])
        )


@dataclass(frozen=True)
class Shown:
    """One policy with everything known about it.

    Attributes:
        name: the budget's; or `float`, `w8a8`; or the baseline's own.
        kind: a reference, a budget's policy, or a baseline of a budget.
        policy: policy.json.
        policy_sha256: its name.
        figures: those of policy (or baseline), finetuned_model and deployable, later ones over earlier ones.
        beside: of a baseline, the budget it is compared with.
        choice: choice.json.
        deployable: deployable.json.
        profiles: device -> its profile.
        onnx_sha256: of packed.onnx.
        registered: registry name and version.
        links: title -> URL of what the tracking server knows.
        simulated: model in `mixbit/simulated/` -> us; measured nowhere.
    """

    name: str
    kind: Kind
    policy: Mapping[str, Mapping[str, Any]]
    policy_sha256: str
    figures: Mapping[str, float]
    beside: str = ""
    choice: Mapping[str, Any] = field(default_factory=dict)
    deployable: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    onnx_sha256: str = ""
    registered: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    simulated: Mapping[str, float] = field(default_factory=dict)

    @property
    def own_name(self) -> str:
        """The name without the budget's, of a baseline."""
        return self.name.removeprefix(f"{self.beside}-") if self.beside else self.name

    def measured(self, figure: str) -> Measured | None:
        """A figure with its `_se`, or None."""
        value = self.figures.get(figure)
        return None if value is None else Measured(value, self.figures.get(f"{figure}_se"))


@dataclass(frozen=True)
class ReportContent:
    """One experiment.

    Attributes:
        experiment: its name.
        shown: references, then each budget with its baseline after it.
        layers: layers.json.
        dataset: dataset_info.json.
        indicators: indicators.json; empty for a hand-written policy.
        metric: what the metric is called; an accuracy is shown in percent.
        facts: whatever else a reader may want to know, as a table: git commit, proxy, seed, device.
    """

    experiment: str
    shown: tuple[Shown, ...]
    layers: Mapping[str, Any]
    dataset: Mapping[str, Any] = field(default_factory=dict)
    indicators: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    facts: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, *kinds: Kind) -> tuple[Shown, ...]:
        """Those of some kinds, in order."""
        return tuple(shown for shown in self.shown if shown.kind in kinds)

    def devices(self) -> list[str]:
        """Every device something was profiled on."""
        return sorted({device for shown in self.shown for device in shown.profiles})

"""What a user declares in `experiments/*.yaml`; the shape only, no meaning."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PositiveFloat, Tag, model_validator

from mixbit.checked_values import as_bits, as_file, as_method, as_name, as_reference, finite, in_one_spelling
from mixbit.config import Settings
from mixbit.latency import SIMULATED, cost_name
from mixbit.limits import LimitsByCost
from mixbit.policy import MAX_BITS, MIN_BITS, NumBits


def _device(value: str) -> str:
    if value.startswith(SIMULATED):
        hint = f"Its times are in every report, and a budget may limit them: {cost_name(value)}"
        raise ValueError(f"expected a device: a simulated model is none. {hint}")
    return as_name(value)


Reference = Annotated[str, AfterValidator(as_reference)]
Name = Annotated[str, AfterValidator(as_name)]
Device = Annotated[str, AfterValidator(_device)]
Method = Annotated[str, AfterValidator(as_method)]  # a file of ours, or module:callable of the user's
File = Annotated[str, AfterValidator(as_file)]
Arguments = Annotated[dict[str, Any], AfterValidator(finite)]
Bits = Annotated[int | Literal["float"], BeforeValidator(as_bits)]
Candidates = Annotated[tuple[Bits, ...], AfterValidator(in_one_spelling)]
WholeBits = Annotated[int, Field(ge=MIN_BITS, le=MAX_BITS)]


LONGEST_WAIT_S = 7 * 24 * 3600
MOST_EPOCHS, MOST_THREADS, LARGEST_SEED, LARGEST_RATE = 1_000_000, 1024, 2**32 - 1, 1e30


class Training(Settings):
    """A supervised schedule: SGD with momentum and a cosine."""

    epochs: int = Field(ge=1, le=MOST_EPOCHS, description="a whole number >= 1")
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=0.05, gt=0, le=LARGEST_RATE)
    weight_decay: float = Field(default=5e-4, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class Model(Settings):
    """The float model: how to build it, and its weights or how to train them."""

    factory: Reference = Field(description="module:callable that builds the float model")
    arguments: Arguments = Field(default_factory=dict)
    checkpoint: File | None = None
    train: Training | None = None

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> "Model":
        if (self.checkpoint is None) == (self.train is None):
            raise ValueError("expected exactly one of checkpoint (a file) and train (a schedule)")
        return self


class Task(Settings):
    """Loss and metric: `loss(outputs, targets) -> scalar`, `metric(outputs, targets) -> per-picture values`."""

    loss: Reference = Field(description="module:callable, loss(outputs, targets)")
    metric: Reference = Field(description="module:callable, metric(outputs, targets)")
    direction: Literal["maximize", "minimize"] = Field(
        description="maximize or minimize: which way the metric is better"
    )


def is_reference(method: str) -> bool:
    """Whether an indicator method is a user's `module:callable`, not one of our files."""
    return ":" in method


def user_modules(factory: str, task: Literal["classification"] | Task) -> tuple[str, ...]:
    """Modules of a model's factory and of a user's loss and metric."""
    references = [factory] if task == "classification" else [factory, task.loss, task.metric]
    return tuple(reference.partition(":")[0] for reference in references)


class Data(Settings):
    """Data that no DVC stage makes: an `.npz`, a folder of pictures (split/class/file), or a callable."""

    npz: File | None = None
    folder: File | None = None
    callable: Reference | None = None
    arguments: Arguments = Field(default_factory=dict)
    image_size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        if sum(source is not None for source in (self.npz, self.folder, self.callable)) != 1:
            raise ValueError("expected exactly one of npz, folder and callable")
        if self.arguments and self.callable is None:
            raise ValueError("expected arguments beside callable only")
        if self.image_size is not None and self.folder is None:
            raise ValueError("expected image_size beside folder only")
        return self


class Proxy(Settings):
    """A subset of train, chosen without a model."""

    method: Literal["stratified", "herding", "k_centre"] = "stratified"
    fraction: float = Field(gt=0, le=1, description="the share of train to take, a number > 0 and <= 1")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)


class Indicators(Settings):
    """Which method, over which candidate num_bits; `settings` belong to the method's own file. Or a table in a file."""

    method: Method = "limpq"
    file: File | None = None
    num_bits: Candidates = Field(min_length=1, description="a list of 2 to 8, or float")
    settings: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _computed_or_given(self) -> "Indicators":
        if self.file is not None and self.model_fields_set & {"method", "settings"}:
            raise ValueError("expected either file (a table) or method and settings, not both")
        return self


class DirectSearch(Settings):
    """A search that measures policies themselves instead of indicators; `settings` belong to the method's own file."""

    method: Name = Field(description="a file in policies/searches")
    num_bits: Candidates = Field(min_length=1, description="a list of 2 to 8, or float")
    settings: Arguments = Field(default_factory=dict)


class Allocation(Settings):
    """How harm is weighed and how long the solver may take."""

    alpha: Literal["balanced"] | PositiveFloat = "balanced"
    time_limit_s: int = Field(default=60, ge=1)


class LayerRule(Settings):
    """Limits of the layers a pattern matches; `exclude` leaves them float."""

    min_bits: WholeBits | None = None
    max_bits: WholeBits | None = None
    exclude: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> "LayerRule":
        if self.exclude and (self.min_bits is not None or self.max_bits is not None):
            raise ValueError("expected exclude alone, or min_bits and max_bits")
        if not self.exclude and self.min_bits is None and self.max_bits is None:
            raise ValueError("expected min_bits, max_bits or exclude: true")
        if self.min_bits is not None and self.max_bits is not None and self.min_bits > self.max_bits:
            raise ValueError(f"expected min_bits <= max_bits, not {self.min_bits} and {self.max_bits}")
        return self


class Finetune(Settings):
    """Quantization-aware training under one policy."""

    epochs: int = Field(ge=1, le=MOST_EPOCHS, description="a whole number >= 1")
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, le=LARGEST_RATE)
    scale_learning_rate: float = Field(default=0.01, gt=0, le=LARGEST_RATE)
    weight_decay: float = Field(default=1e-4, ge=0)
    start: Literal["supernet", "float"] = "supernet"
    distill: float = Field(default=0.0, ge=0, le=1)
    per_channel: bool = True


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ValueError(f"expected each name once; more than once: {', '.join(twice)}")
    return names


def _groups(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    if any(len(group) < 2 for group in groups):
        raise ValueError("expected at least two layers in every group")
    twice = sorted(name for name, times in Counter(name for group in groups for name in group).items() if times > 1)
    if twice:
        raise ValueError(f"expected every layer in at most one group; more than once: {', '.join(twice)}")
    return groups


class Smallest(Settings):
    """The least of one cost whose fine-tuned model still is as good as asked.

    Attributes:
        metric_drop: the most that the metric on val may fall from the float model's: percentage points of accuracy,
            for a metric of the user's own its own unit.
        cost: what is to be small.
        tries: the most policies that are fine-tuned to find it.
    """

    metric_drop: float = Field(ge=0, description="a number >= 0: points of accuracy, or the metric's own unit")
    cost: Literal["bitops", "size_bits", "file_bytes"] = "size_bits"
    tries: int = Field(default=6, ge=1, le=20)


class Target(Settings):
    """A budget that says how good, not how large."""

    smallest: Smallest


def _kind_of_budget(value: Any) -> str:
    return "target" if isinstance(value, Target) or (isinstance(value, dict) and "smallest" in value) else "limits"


Limits = Annotated[LimitsByCost, Field(min_length=1)]
Budget = Annotated[Annotated[Limits, Tag("limits")] | Annotated[Target, Tag("target")], Discriminator(_kind_of_budget)]
Names = Annotated[tuple[Name, ...], AfterValidator(_each_once)]
Devices = Annotated[tuple[Device, ...], AfterValidator(_each_once)]
Groups = Annotated[tuple[tuple[str, ...], ...], AfterValidator(_groups)]


class Experiment(Settings):
    """One declared experiment; every field that changes a result ends up in some stage's parameters."""

    name: Name = Field(description="a name")
    model: Model = Field(description="factory, and checkpoint or train")
    data: Name | Data = Field(description="a name from dvc.yaml, or a mapping with npz, folder or callable")
    task: Literal["classification"] | Task = Field(
        default="classification", description="classification, or a mapping with loss, metric and direction"
    )
    proxy: Name | Proxy = Field(
        default=Proxy(fraction=0.5), description="a name from dvc.yaml, or a mapping with fraction"
    )
    indicators: Indicators | None = None
    search: DirectSearch | None = None
    allocation: Allocation = Allocation()
    fixed_layers: Literal["limpq", "none"] = "limpq"
    groups: Groups = ()
    layers: dict[str, LayerRule] = Field(default_factory=dict)
    budgets: dict[Name, Budget] = Field(default_factory=dict)
    baselines: Names = ("uniform",)
    policy: File | None = None
    finetune: Finetune | Literal["none"] = Field(description="none, or a mapping with epochs")
    devices: Devices = ("local",)
    device_wait_s: float = Field(default=60.0, ge=0, le=LONGEST_WAIT_S)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    threads: int = Field(default=1, ge=1, le=MOST_THREADS)

    @property
    def num_bits(self) -> tuple[NumBits, ...] | None:
        """The candidates; None for a given policy."""
        asked = self.indicators or self.search
        return None if asked is None else asked.num_bits

    @model_validator(mode="after")
    def _policy_or_search(self) -> "Experiment":
        if self.indicators is not None and self.search is not None:
            raise ValueError("expected either indicators or search, not both")
        if self.policy is None and ((self.indicators or self.search) is None or not self.budgets):
            raise ValueError("expected indicators and budgets (a search), or policy (a file)")
        if self.policy is not None and self.budgets:
            raise ValueError("expected either policy (a file) or budgets, not both")
        if self.policy is not None and self.layers:
            raise ValueError("expected either policy (a file) or layers (rules of a search), not both")
        return self

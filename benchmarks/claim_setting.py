"""What the claim is tried on: the experiment of a seed, as YAML, and how long each part trains."""

import json
from dataclasses import asdict, dataclass
from typing import Any

BASELINES = ("uniform", "reversed", "statistics_init_only")
BUDGET = "w3a3"


@dataclass(frozen=True)
class Setting:
    """One claim; every seed shares the float model of the first.

    Attributes:
        data: a data set of dvc.yaml.
        factory: of the network.
        num_classes: of the data.
        proxy: the share of train that indicators are learned on.
        float_epochs: of the float model, over train.
        indicator_epochs: of the joint training, over the proxy.
        finetune_epochs: of each policy, over train.
        seeds: of indicators, fine-tuning and calibration.
        alpha: weight of weights' harm, or `balanced`.
    """

    data: str = "glyphs"
    factory: str = "mixbit.models.resnet:resnet20"
    num_classes: int = 47
    proxy: float = 0.25
    float_epochs: int = 5
    indicator_epochs: int = 3
    finetune_epochs: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    alpha: float | str = "balanced"

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        return asdict(self)


QUICK = Setting("digits", "mixbit.models.resnet:resnet8", 10, 0.5, 2, 1, 1, (0, 1))


def experiment(setting: Setting, seed: int, checkpoint: str | None) -> str:
    """An experiment file (JSON is YAML); the float model is trained, or given as a file."""
    weights = {"checkpoint": checkpoint} if checkpoint else {"train": _train(setting)}
    content = {
        "name": name_of(seed),
        "model": {
            "factory": setting.factory,
            "arguments": {"num_classes": setting.num_classes, "in_channels": 1},
            **weights,
        },
        "data": setting.data,
        "proxy": {"fraction": setting.proxy},
        "indicators": {"num_bits": [2, 3, 4, 5, 6], "settings": {"epochs": setting.indicator_epochs}},
        "allocation": {"alpha": setting.alpha},
        "budgets": {BUDGET: {"bitops": BUDGET}},
        "baselines": list(BASELINES),
        "finetune": {"epochs": setting.finetune_epochs, "batch_size": 128, "learning_rate": 0.03},
        "devices": [],
        "seed": seed,
    }
    return json.dumps(content, indent=1)


def name_of(seed: int) -> str:
    """The experiment of a seed."""
    return f"claim-{seed}"


def _train(setting: Setting) -> dict[str, Any]:
    return {"epochs": setting.float_epochs, "learning_rate": 0.1}

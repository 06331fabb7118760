"""Stage `layers`: model + info -> layers.json: costs and ties of each layer. CPU, seconds, before any training."""

from typing import Any

from pydantic import Field

from mixbit.config import Settings
from tasks.stage import Work

OUTPUTS = ("layers.json",)
FACTS = ("torch",)  # its tracer names the tensors


class Params(Settings):
    """The model, as declared; weights do not matter here."""

    factory: str
    arguments: dict[str, Any] = Field(default_factory=dict)


def modules(params: Params) -> tuple[str, ...]:
    """The factory's module."""
    return (params.factory.partition(":")[0],)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Trace the model on pictures of the data's shape and describe every layer.

    Raises:
        MisuseError: the factory is none.
        MixbitError: the factory fails, or the model cannot be quantized: all reasons, a line each.
    """
    import json

    from mixbit.models.build import build_model
    from mixbit.models.graph import describe_layers
    from mixbit.policy import canonical_json

    info = json.loads(work.inputs["info"].read_bytes())
    model = build_model(params.factory, params.arguments, work.search_path, seed=0)
    described = describe_layers(model, info["input_shape"])
    (work.out / "layers.json").write_bytes(canonical_json(described))
    layers = described["layers"]
    return {
        "layers": float(len(layers)),
        "macs": float(sum(layer["macs"] for layer in layers)),
        "weights": float(sum(layer["weights"] for layer in layers)),
        "never_run": float(len(described["never_run"])),
    }

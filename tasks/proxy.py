"""Stage `proxy`: dataset + info (+ manifest from DVC) -> proxy.json. CPU, seconds."""

from typing import Literal

from pydantic import Field, model_validator

from mixbit.config import Settings
from tasks.stage import Work

OUTPUTS = ("proxy.json",)
FACTS = ()


class Params(Settings):
    """How to choose; all None when input `manifest` says which pictures. `name` is what errors call the proxy."""

    name: str = "proxy"
    method: Literal["stratified", "herding", "k_centre"] | None = None
    fraction: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _all_or_nothing(self) -> "Params":
        given = [value is not None for value in (self.method, self.fraction, self.seed)]
        if any(given) != all(given):
            raise ValueError("expected method, fraction and seed, or none of them (a manifest)")
        return self


def compute(work: Work, params: Params) -> dict[str, float]:
    """Choose a part of train, or check the manifest that names one.

    Raises:
        MixbitError: a class would have no picture; says what fraction would do.
        ConfigError: every fault of the manifest at once.
    """
    import json

    from mixbit.data import arrays, manifest, proxy
    from mixbit.policy import canonical_json

    data = arrays.load(work.inputs["dataset"], "dataset.safetensors")
    labels = json.loads(work.inputs["info"].read_bytes())["labels"]
    x, y, digest = data.tensors["train_x"], data.tensors["train_y"], work.digests["dataset"]
    if params.method is None:
        said = manifest.parse(work.inputs["manifest"].read_bytes(), params.name)
        manifest.verified(said, y, labels, digest, params.name)
    else:
        how = params.model_dump(include={"method", "fraction", "seed"})
        said = proxy.manifest(proxy.select(x, y, **how, labels=labels, where=params.name), **how, dataset_sha256=digest)
    (work.out / "proxy.json").write_bytes(canonical_json(said))
    return {"count": float(said["count"]), "fraction": said["count"] / len(y)}

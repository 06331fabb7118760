"""Stage `dataset`: a source of pictures -> dataset.safetensors, dataset_info.json. CPU, seconds."""

from typing import Any, Literal

from pydantic import Field

from mixbit.config import Settings
from tasks.stage import Work

OUTPUTS = ("dataset.safetensors", "dataset_info.json")
FACTS = ("pillow",)  # decoding and resizing of pictures


class Params(Settings):
    """How to read the source.

    `kind` is the source's format; a DVC name becomes the format of what its stage makes. `name` is what errors and
    dataset_info.json call it, `md5` what DVC knows it by.
    """

    kind: Literal["safetensors", "npz", "folder", "callable"]
    name: str
    md5: str | None = None
    reference: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    image_size: int | None = Field(default=None, ge=1)


def modules(params: Params) -> tuple[str, ...]:
    """The user's module, when a callable gives the data."""
    return (params.reference.partition(":")[0],) if params.reference else ()


def compute(work: Work, params: Params) -> dict[str, float]:
    """Read, check everything, write the canonical files; input `source` (file or folder) unless a callable gives it.

    Raises:
        ConfigError: every fault of the data at once.
        MixbitError: the source can't be read, or the callable failed.
    """
    from mixbit.data.arrays import dump
    from mixbit.data.check import checked
    from mixbit.data.info import describe
    from mixbit.policy import canonical_json

    arrays = checked(_read(work, params), params.name)
    info = describe(arrays, source=params.name, md5=params.md5)
    (work.out / "dataset.safetensors").write_bytes(dump(arrays))
    (work.out / "dataset_info.json").write_bytes(canonical_json(info))
    return {split: float(count) for split, count in info["counts"].items()}


def _read(work: Work, params: Params) -> Any:
    from mixbit.data import arrays, folder, from_callable, npz

    if params.kind == "callable":
        assert params.reference is not None
        return from_callable.read(params.reference, params.arguments, work.search_path)
    source = work.inputs["source"]
    if params.kind == "folder":
        return folder.read(source, params.name, params.image_size)
    return npz.read(source, params.name) if params.kind == "npz" else arrays.load(source, params.name)

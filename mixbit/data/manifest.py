"""proxy.json: which pictures of train a proxy holds, and the checks before it is believed."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mixbit.data.arrays import Array
from mixbit.data.proxy import missing_class
from mixbit.data.strata import Integers, share
from mixbit.errors import ConfigError, MixbitError

FIELDS = {"method": str, "fraction": float, "seed": int, "dataset_sha256": str, "count": int, "indices": list}


def parse(content: bytes, where: str) -> dict[str, Any]:
    """The manifest's fields, in their types.

    Raises:
        MixbitError: not JSON, or a field is missing, unknown or of another type.
    """
    try:
        data = json.loads(content)
    except ValueError as error:
        raise MixbitError(where, f"not JSON: {error}") from None
    if not isinstance(data, dict) or set(data) != set(FIELDS):
        got = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise MixbitError(where, "not a proxy manifest", expected=", ".join(FIELDS), got=got)
    for name, kind in FIELDS.items():
        if type(data[name]) is not kind and not (kind is float and type(data[name]) is int):
            raise MixbitError(f"{where}: {name}", "wrong type", expected=kind.__name__, got=type(data[name]).__name__)
    if not data["indices"] or not all(type(index) is int for index in data["indices"]):
        raise MixbitError(f"{where}: indices", "", expected="at least one integer, and integers only")
    return data | {"fraction": float(data["fraction"])}


def verified(data: dict[str, Any], y: Array, labels: Sequence[str], dataset_sha256: str, where: str) -> Integers:
    """The manifest's indices, once they are sorted, unique, in range, as many as promised, and cover every class.

    Args:
        data: parsed.
        y: train's labels [N].
        labels: class names.
        dataset_sha256: of the dataset's canonical bytes.
        where: names the manifest in errors.

    Raises:
        ConfigError: every fault at once.
    """
    faults = list(_faults(data, y, labels, dataset_sha256, where))
    if faults:
        raise ConfigError(faults)
    return np.asarray(data["indices"], np.int64)


def _faults(
    data: dict[str, Any], y: Array, labels: Sequence[str], dataset_sha256: str, where: str
) -> Iterator[MixbitError]:
    if data["dataset_sha256"] != dataset_sha256:
        expected, got = dataset_sha256[:12], data["dataset_sha256"][:12]
        hint = "It was chosen from other data: use the proxy of this dataset, or make it again"
        yield MixbitError(f"{where}: dataset_sha256", "", expected=expected, got=got, hint=hint)
        return
    indices, fraction = data["indices"], data["fraction"]
    if sorted(set(indices)) != indices:
        yield MixbitError(f"{where}: indices", "", expected="sorted, each once")
    outside = [index for index in indices if not 0 <= index < len(y)]
    if outside:
        yield MixbitError(
            f"{where}: indices", f"{len(outside)} outside train", expected=f"0..{len(y) - 1}", got=outside[0]
        )
    if not 0 < fraction <= 1:
        yield MixbitError(f"{where}: fraction", "", expected="in (0, 1]", got=fraction)
    elif len(indices) != data["count"] or len(indices) != share(fraction, len(y)):
        expected = f"{share(fraction, len(y))} pictures ({fraction:g} of {len(y)})"
        yield MixbitError(f"{where}: count", "", expected=expected, got=f"{data['count']} and {len(indices)} indices")
    inside = [index for index in indices if 0 <= index < len(y)]
    absent = np.setdiff1d(np.unique(y), np.unique(y[inside]) if inside else [])
    if len(absent):
        yield missing_class(absent, labels, int(np.unique(y, return_counts=True)[1].min()), where)

"""Pictures and labels in three splits, and the one file format that holds them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixbit.errors import MixbitError

SPLITS = ("train", "val", "test")
KEYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("x", "y"))
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Arrays:
    """A dataset in memory.

    Attributes:
        tensors: `train_x`, `train_y`, `val_x`, ... After `check.checked`: x uint8 or float32 [N, C, H, W] in its own
            units, y int64 [N]. Beside them whatever else there is one of per picture: `train_severity`, ...
        labels: class names, by label; empty when the source gives none.
    """

    tensors: Mapping[str, Array]
    labels: tuple[str, ...] = ()


def dump(arrays: Arrays) -> bytes:
    """Canonical bytes: safetensors, every tensor, `{"labels": [...]}` in the header. Equal content, equal bytes."""
    from safetensors.numpy import save

    # One metadata entry only: the writer does not promise an order for several.
    info = compact_json({"labels": list(arrays.labels)})
    return save(
        {key: np.ascontiguousarray(arrays.tensors[key]) for key in (*KEYS, *beside(arrays.tensors))},
        metadata={"info": info},
    )


def beside(names: Iterable[str]) -> list[str]:
    """Those that name a further array of a split, such as `train_severity`, sorted."""
    return sorted(
        name for name in names if name.startswith(tuple(f"{split}_" for split in SPLITS)) and name not in KEYS
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, then rename: a command that outlives a killed run never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def compact_json(value: Any) -> str:
    """One spelling per value. Not `policy.canonical_json`: an edit of the policy file must not make data stale."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def load(path: Path, where: str) -> Arrays:
    """Read a `.safetensors` dataset; `where` names it in errors.

    Raises:
        MixbitError: not a safetensors file, or tensors are missing.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            found = {key: file.get_tensor(key) for key in names if key in KEYS}
            more = {key: file.get_tensor(key) for key in beside(names)}
        info = json.loads(metadata.get("info", "{}"))
        labels = info.get("labels", []) if isinstance(info, dict) else []
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise MixbitError(where, f"not a readable safetensors file: {error}") from None
    arrays = picked({**found, "labels": labels}, where)
    return Arrays({**arrays.tensors, **more}, arrays.labels)


def picked(found: Mapping[str, Any], where: str) -> Arrays:
    """The six arrays, and optionally `labels`, out of what a file or a callable gave.

    Raises:
        MixbitError: keys are missing, or a value is no plain array.
    """
    missing = [key for key in KEYS if key not in found]
    if missing:
        there = ", ".join(sorted(map(str, found))) or "nothing"
        raise MixbitError(where, f"missing {', '.join(missing)}", expected=", ".join(KEYS), got=there)
    return Arrays({key: _plain(found[key], f"{where}: {key}") for key in KEYS}, _names(found.get("labels", ()), where))


def _plain(value: Any, where: str) -> Array:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise MixbitError(where, f"not an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise MixbitError(where, "not numbers", expected="an array of numbers of one shape", got=f"dtype {array.dtype}")
    return array


def _names(value: Any, where: str) -> tuple[str, ...]:
    names = np.asarray(value).tolist() if not isinstance(value, (list, tuple)) else list(value)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MixbitError(f"{where}: labels", "not class names", expected="one text per class", got=repr(value)[:60])
    if len(set(names)) != len(names):
        raise MixbitError(f"{where}: labels", "two classes of one name", got=", ".join(names)[:60])
    return tuple(names)

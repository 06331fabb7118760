"""Checkpoints that survive a kill: written whole or not at all, and believed only when their digests agree."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from mixbit.policy import canonical_json

KEPT = 2  # the last two: should the newest be damaged, the one before still saves the work


def write_checkpoint(folder: Path, number: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `<number>.safetensors` and, once that is on disk, `<number>.json` that vouches for it.

    Args:
        folder: made when missing; older checkpoints in it are removed.
        number: rises from one checkpoint to the next.
        tensors: any tensors; they may share memory.
        state: JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    _write(folder / f"{number}.safetensors", content)
    body = {"state": dict(state), "tensors_sha256": hashlib.sha256(content).hexdigest()}
    _write(folder / f"{number}.json", canonical_json({**body, "sha256": _digest(body)}))
    kept = {str(recent) for recent in _numbers(folder)[:KEPT]}
    for path in folder.iterdir():
        if path.name.split(".")[0] not in kept:
            path.unlink()


def latest_checkpoint(folder: Path, identity: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint whose state says `identity`; damaged and foreign ones are passed over."""
    for number in _numbers(folder):
        found = _read(folder, number)
        if found is not None and found[1].get("identity") == identity:
            return found
    return None


def _read(folder: Path, number: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    try:
        body = json.loads((folder / f"{number}.json").read_bytes())
        claimed = body.pop("sha256")
        content = (folder / f"{number}.safetensors").read_bytes()
        vouched = claimed == _digest(body) and hashlib.sha256(content).hexdigest() == body["tensors_sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (load(content), body["state"]) if vouched else None


def _numbers(folder: Path) -> list[int]:
    return sorted((int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()), reverse=True)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f"{path.suffix}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

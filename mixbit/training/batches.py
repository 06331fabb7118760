"""Pictures in memory, normalized as they are used, in an order that depends on (seed, epoch) only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """Pictures and targets of one split.

    Attributes:
        x: uint8 or float32 [N, C, H, W], in the data set's own units.
        y: targets, int64 [N] for classification.
        info: dataset_info.json: `mean` and `std` per channel, in x's units.
    """

    x: Tensor
    y: Tensor
    info: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.y)

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Model inputs (float32, normalized) and targets of these pictures."""
        return normalize(self.x[indices], self.info), self.y[indices]

    def subset(self, indices: Tensor) -> "Pictures":
        """These pictures only."""
        return Pictures(self.x[indices], self.y[indices], self.info)


def read_info(path: Path) -> dict[str, Any]:
    """dataset_info.json as a dict."""
    info: dict[str, Any] = json.loads(path.read_bytes())
    return info


def read_pictures(dataset: Path, info: Mapping[str, Any], split: str, device: str = "cpu") -> Pictures:
    """One split (train, val or test) of dataset.safetensors; the other splits are not read."""
    with safe_open(dataset, framework="pt") as tensors:
        x, y = tensors.get_tensor(f"{split}_x"), tensors.get_tensor(f"{split}_y")
    return Pictures(x.to(device), y.to(device), info)


def normalize(x: Tensor, info: Mapping[str, Any]) -> Tensor:
    """(x - mean) / std per channel; [N, C, H, W] in the data set's units -> float32 model input."""
    mean = torch.tensor(info["mean"], dtype=torch.float32, device=x.device).view(1, -1, 1, 1)
    std = torch.tensor(info["std"], dtype=torch.float32, device=x.device).view(1, -1, 1, 1)
    return (x.float() - mean) / std


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2**63) for this purpose, independent of every other purpose's."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(*parts: int | str) -> torch.Generator:
    """A generator for this purpose, such as `stream(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Indices of one epoch's batches, shuffled by (seed, epoch).

    A last batch of one picture is left out when there are others: BatchNorm cannot normalize a single value.
    """
    order = torch.randperm(count, generator=stream(seed, "order", epoch))
    batches = list(order.split(batch_size))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def calibration_pictures(pictures: Pictures, count: int, seed: int) -> Tensor:
    """Model inputs of up to `count` pictures drawn by seed, float32 [n, C, H, W]."""
    order = torch.randperm(len(pictures), generator=stream(seed, "calibration"))
    return pictures.at(order[:count])[0]

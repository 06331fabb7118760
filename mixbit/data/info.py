"""dataset_info.json: what a model must know about its pictures."""

import math
from typing import Any

import numpy as np

from mixbit.data.arrays import SPLITS, Array, Arrays

SIGNIFICANT_DIGITS = 9
FLAT = 1e-6


def describe(arrays: Arrays, *, source: str, md5: str | None) -> dict[str, Any]:
    """Shape, labels and counts, and per channel mean and std over train, in x's own units.

    A channel that hardly varies (std below 1e-6 of its magnitude) gets std 1: it must not be blown up.

    Args:
        arrays: checked (`check.checked`).
        source: the dataset's name.
        md5: of the source, as DVC knows it.
    """
    train = arrays.tensors["train_x"]
    moments = [_mean_and_std(train[:, channel]) for channel in range(train.shape[1])]
    return {
        "input_shape": list(train.shape[1:]),
        "num_classes": len(arrays.labels),
        "labels": list(arrays.labels),
        "dtype": str(train.dtype),
        "mean": [mean for mean, _ in moments],
        "std": [std for _, std in moments],
        "counts": {split: len(arrays.tensors[f"{split}_y"]) for split in SPLITS},
        "md5": md5,
        "source": source,
    }


def _mean_and_std(x: Array) -> tuple[float, float]:
    if x.dtype == np.uint8:
        histogram = np.bincount(x.ravel(), minlength=256).tolist()
        total = sum(value * count for value, count in enumerate(histogram))
        squares = sum(value * value * count for value, count in enumerate(histogram))
        # Whole numbers: exact on every machine.
        mean, variance = total / x.size, (squares * x.size - total * total) / (x.size * x.size)
    else:
        mean = float(np.mean(x, dtype=np.float64))
        variance = float(np.mean(np.square(x.astype(np.float64) - mean)))
    std = math.sqrt(variance)
    return _rounded(mean), _rounded(std if std > FLAT * max(abs(mean), FLAT) else 1.0)


def _rounded(value: float) -> float:
    # Sums of floats differ in the last digits between machines; artifacts must not.
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")

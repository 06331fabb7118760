"""DVC stage `digits`: scikit-learn's bundled handwritten digits (8x8, 0..16) in three stratified splits.

Data: https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
"""

import argparse
from pathlib import Path

import numpy as np

from mixbit.data.arrays import Array, Arrays, dump, write_whole
from mixbit.data.strata import quotas, share, shuffled, taken_per_class

HELD_OUT = 0.2


def digits(seed: int) -> Arrays:
    """1797 pictures, uint8 [N, 1, 8, 8] in 0..16, about 60/20/20 train/val/test, every class in proportion."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = bunch.images.astype(np.uint8)[:, np.newaxis]
    y = bunch.target.astype(np.int64)
    tensors: dict[str, Array] = {}
    for split, indices in _splits(y, seed).items():
        tensors |= {f"{split}_x": x[indices], f"{split}_y": y[indices]}
    return Arrays(tensors, tuple(str(label) for label in range(10)))


def _splits(y: Array, seed: int) -> dict[str, Array]:
    order = shuffled(len(y), seed)
    classes, counts = np.unique(y, return_counts=True)
    quota = quotas(counts, share(HELD_OUT, len(y)))
    test = taken_per_class(y, order, classes, quota)
    val = taken_per_class(y, order[~np.isin(order, test)], classes, quota)
    train = np.setdiff1d(np.arange(len(y)), np.concatenate([test, val]))
    return {"train": train, "val": val, "test": test}


def main() -> None:
    """`python -m mixbit.data.digits --seed 0 --out FILE`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_whole(arguments.out, dump(digits(arguments.seed)))


if __name__ == "__main__":
    main()

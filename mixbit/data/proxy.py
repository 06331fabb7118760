"""Proxies: a part of train with every class in proportion, chosen without a model.

Herding and k-centre work per class in a model-free space: the principal components of the (block-averaged) pixels.
Herding as iCaRL Algorithm 4 does it (https://arxiv.org/abs/1611.07725), in that space; k-centre is the greedy
farthest-first traversal (Gonzalez 1985, used for core-sets in https://arxiv.org/abs/1708.00489).
"""

import argparse
import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixbit.data.arrays import Array, compact_json, dump, load, write_whole
from mixbit.data.strata import Integers, quotas, share, shuffled, taken_per_class
from mixbit.errors import MisuseError, MixbitError

COMPONENTS = 32
SIDE = 16
TIE_DIGITS = 9
CHUNK = 1024
Features = npt.NDArray[np.float64]


def select(
    x: Array, y: Array, *, method: str, fraction: float, seed: int, labels: Sequence[str] = (), where: str = "proxy"
) -> Integers:
    """Sorted indices of exactly `share(fraction, N)` pictures, each class within 1 of its proportion.

    Args:
        x: [N, C, H, W], any units.
        y: [N], integers.
        method: `stratified` (at random, by `seed`), `herding` or `k_centre` (both without chance).
        fraction: in (0, 1].
        seed: read by `stratified` only.
        labels: class names for errors.
        where: names the proxy in errors.

    Raises:
        MisuseError: unknown method, or fraction out of range.
        MixbitError: a class would get no picture; says which and what fraction would do.
    """
    if method not in ("stratified", *PICKERS):
        raise MisuseError(where, "unknown method", expected=", ".join(("stratified", *PICKERS)), got=method)
    if not 0 < fraction <= 1:
        raise MisuseError(where, "fraction", expected="in (0, 1]", got=fraction)
    classes, counts = np.unique(y, return_counts=True)
    quota = quotas(counts, share(fraction, len(y)))
    if (quota == 0).any():
        raise missing_class(classes[quota == 0], labels, int(counts.min()), where)
    if method == "stratified":
        return taken_per_class(y, shuffled(len(y), seed), classes, quota)
    space = pixel_components(x)
    kept = []
    for label, wanted in zip(classes, quota, strict=True):
        members = np.flatnonzero(y == label)
        kept.append(members[PICKERS[method](space[members], int(wanted))])
    return np.sort(np.concatenate(kept))


def missing_class(classes: Sequence[int] | Integers, labels: Sequence[str], smallest: int, where: str) -> MixbitError:
    """The error for classes without a picture; `smallest` is the picture count of train's rarest class."""
    names = ", ".join(labels[int(label)] if labels else str(label) for label in classes)
    enough = math.ceil(10_000 / smallest) / 10_000
    return MixbitError(
        where, f"no picture of class {names}", expected="every class", hint=f"A fraction of {enough:g} would do"
    )


def pixel_components(x: Array) -> Features:
    """The first 32 principal components [N, <=32] of pixels averaged down to at most 16x16, scaled to unit spread."""
    small = np.concatenate([_small(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)])
    centred = small - small.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    projected = centred @ vectors[:, ::-1][:, :COMPONENTS]
    spread = math.sqrt(float(np.square(projected).sum(axis=1).mean()))
    return np.asarray(projected / spread if spread > 0 else projected, np.float64)


def _small(x: Array) -> Features:
    return _averaged(_averaged(x.astype(np.float64), 2), 3).reshape(len(x), -1)


def _averaged(x: Features, axis: int) -> Features:
    """Block means along one axis, at most SIDE blocks."""
    size = x.shape[axis]
    if size <= SIDE:
        return x
    starts = np.arange(SIDE) * size // SIDE
    widths = np.diff(np.append(starts, size))
    return np.asarray(np.add.reduceat(x, starts, axis=axis) / np.expand_dims(widths, tuple(range(1, x.ndim - axis))))


def herding(space: Features, wanted: int) -> Integers:
    """Pick one after the other so that the mean of the picked stays nearest to the mean of all."""
    mean, picked_sum = space.mean(axis=0), np.zeros(space.shape[1])
    squares = np.square(space).sum(axis=1)
    free = np.ones(len(space), dtype=bool)
    picked: list[int] = []
    for step in range(1, wanted + 1):
        # |step * mean - picked_sum - x|^2 without the part that is equal for every x
        distance = squares - 2 * (space @ (step * mean - picked_sum))
        picked.append(_nearest(np.where(free, distance, np.inf)))
        free[picked[-1]] = False
        picked_sum = picked_sum + space[picked[-1]]
    return np.asarray(picked, np.int64)


def k_centre(space: Features, wanted: int) -> Integers:
    """Begin nearest to the mean, then always take what is farthest from everything taken."""
    picked = [_nearest(np.square(space - space.mean(axis=0)).sum(axis=1))]
    gap = np.square(space - space[picked[0]]).sum(axis=1)
    gap[picked[0]] = -1.0
    while len(picked) < wanted:
        picked.append(_nearest(-gap))
        gap = np.minimum(gap, np.square(space - space[picked[-1]]).sum(axis=1))
        gap[picked[-1]] = -1.0
    return np.asarray(picked, np.int64)


def _nearest(distance: Features) -> int:
    """The smallest; what differs by rounding error only is a tie, and the first wins, on every machine."""
    return int(np.argmin(np.round(distance, TIE_DIGITS)))


PICKERS = {"herding": herding, "k_centre": k_centre}


def manifest(indices: Integers, *, method: str, fraction: float, seed: int, dataset_sha256: str) -> dict[str, Any]:
    """proxy.json; `dataset_sha256` is that of the dataset's canonical bytes (`arrays.dump`)."""
    return {
        "method": method,
        "fraction": float(fraction),
        "seed": seed,
        "dataset_sha256": dataset_sha256,
        "count": len(indices),
        "indices": indices.tolist(),
    }


def main() -> None:
    """`python -m mixbit.data.proxy --dataset FILE --method herding --fraction 0.5 --seed 0 --out FILE`."""
    parser = argparse.ArgumentParser(description="Choose a part of train and write its manifest.")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--fraction", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        arrays = load(given.dataset, given.dataset.name)
        x, y = arrays.tensors["train_x"], arrays.tensors["train_y"]
        settings = {"method": given.method, "fraction": given.fraction, "seed": given.seed}
        indices = select(x, y, **settings, labels=arrays.labels, where=given.out.stem)
    except MixbitError as error:
        sys.exit(str(error))
    digest = hashlib.sha256(dump(arrays)).hexdigest()
    write_whole(given.out, compact_json(manifest(indices, **settings, dataset_sha256=digest)).encode())


if __name__ == "__main__":
    main()

"""What a dataset must be before anything is trained on it; every fault at once."""

from collections.abc import Iterator

import numpy as np

from mixbit.data.arrays import SPLITS, Array, Arrays, beside
from mixbit.errors import ConfigError, MixbitError

NAMED = 10


def checked(arrays: Arrays, where: str) -> Arrays:
    """The dataset in canonical types: x uint8 or float32 [N, C, H, W], y int64 [N], every class named.

    float16 and float64 pixels become float32; [N, H, W] becomes one channel.

    Raises:
        ConfigError: all faults: an empty split, shapes or types that differ, NaN or infinite pixels, labels that are
            no whole numbers or out of range, a class train does not show, a further array of another length.
    """
    pictures = {split: _canonical_x(arrays.tensors[f"{split}_x"]) for split in SPLITS}
    classes = {split: arrays.tensors[f"{split}_y"] for split in SPLITS}
    faults = [
        fault
        for split in SPLITS
        for fault in _picture_faults(pictures[split], pictures["train"], f"{where}: {split}_x")
    ]
    faults += [
        fault for split in SPLITS for fault in _shape_faults(classes[split], pictures[split], f"{where}: {split}_y")
    ]
    for key in beside(arrays.tensors):
        values, pictured = arrays.tensors[key], pictures[key.partition("_")[0]]
        if values.shape[:1] != pictured.shape[:1]:
            faults.append(MixbitError(f"{where}: {key}", "length", expected=len(pictured), got=list(values.shape)))
    if not faults:
        count = len(arrays.labels) or int(classes["train"].max()) + 1
        for split in SPLITS:
            faults += _label_faults(classes[split], count, f"{where}: {split}_y")
        faults += _class_faults(classes["train"], count, arrays.labels, f"{where}: train_y")
    if faults:
        raise ConfigError(faults)
    tensors = {f"{split}_x": pictures[split] for split in SPLITS}
    tensors |= {f"{split}_y": classes[split].astype(np.int64) for split in SPLITS}
    tensors |= {key: arrays.tensors[key] for key in beside(arrays.tensors)}
    return Arrays(tensors, arrays.labels or tuple(str(label) for label in range(count)))


def _canonical_x(x: Array) -> Array:
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
    return x[:, np.newaxis] if x.ndim == 3 else x


def _picture_faults(x: Array, train: Array, where: str) -> Iterator[MixbitError]:
    if x.dtype not in (np.uint8, np.float32):
        hint = "Save pixels as uint8 (0..255) or float32"
        yield MixbitError(where, "pixel type", expected="uint8 or floating point", got=str(x.dtype), hint=hint)
        return
    if x.ndim != 4:
        yield MixbitError(where, "shape", expected="[N, C, H, W]", got=list(x.shape))
        return
    if len(x) == 0:
        yield MixbitError(where, "empty split", expected="at least one picture", got=0)
        return
    if x.shape[3] in (1, 3, 4) and x.shape[1] > 4:
        hint = "This looks like channels last: transpose(0, 3, 1, 2)"
        yield MixbitError(where, "shape", expected="[N, C, H, W]", got=list(x.shape), hint=hint)
    elif 0 in x.shape:
        yield MixbitError(where, "shape", expected="[N, C, H, W] of at least one pixel", got=list(x.shape))
    elif train.ndim == 4 and len(train) and x.shape[1:] != train.shape[1:]:
        yield MixbitError(where, "shape", expected=f"{list(train.shape[1:])} as in train", got=list(x.shape[1:]))
    if x.dtype != train.dtype:
        yield MixbitError(where, "pixel type", expected=f"{train.dtype} as in train", got=str(x.dtype))
    yield from _value_faults(x, where)


def _value_faults(x: Array, where: str) -> Iterator[MixbitError]:
    if x.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
    if len(bad):
        what = f"NaN or infinite pixels in {len(bad)} of {len(x)} pictures, first at index {bad[0]}"
        yield MixbitError(where, what, expected="finite float32")


def _shape_faults(y: Array, x: Array, where: str) -> Iterator[MixbitError]:
    if y.dtype.kind not in "iu":
        yield MixbitError(where, "label type", expected="whole numbers", got=str(y.dtype))
    if y.shape != x.shape[:1]:
        yield MixbitError(
            where, "shape", expected=f"[{len(x) if x.ndim else 0}], one label a picture", got=list(y.shape)
        )


def _label_faults(y: Array, count: int, where: str) -> Iterator[MixbitError]:
    bad = np.flatnonzero((y < 0) | (y >= count))
    if len(bad):
        what = f"{len(bad)} labels out of range, first at index {bad[0]}"
        yield MixbitError(where, what, expected=f"0..{count - 1}", got=int(y[bad[0]]))


def _class_faults(y: Array, count: int, labels: tuple[str, ...], where: str) -> Iterator[MixbitError]:
    shown = {int(label) for label in np.unique(y) if 0 <= label < count}
    missing = count - len(shown)
    if missing:
        # Never spelled out in full: one absurd label would make a list of millions.
        absent = (label for label in range(count) if label not in shown)
        first = [labels[label] if labels else str(label) for label, _ in zip(absent, range(NAMED), strict=False)]
        more = f" and {missing - NAMED} more" if missing > NAMED else ""
        yield MixbitError(where, f"no picture of class {', '.join(first)}{more}", expected="every class in train")
    elif count < 2:
        yield MixbitError(where, "one class", expected="at least 2 classes", got=count)

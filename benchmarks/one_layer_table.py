"""A followed layer's computations against each other: how far values move, how many codes differ."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.one_layer_codes import EXACT, FLOAT_BIAS, KERNEL, PACKED, PLAIN, PYTORCH, REF, Followed, tie_distance
from mixbit.devices.executed import Executed
from mixbit.export.end_to_end import EndToEnd

NONE = "-"
NEWS = {
    PYTORCH: "float32: the order of its sums",
    REF: "float32 in another order",
    FLOAT_BIAS: "BatchNorm folded into scales that are rounded to float32; the bias is not rounded",
    PACKED: "the int32 bias",
    KERNEL: "requantizes in float32",
    PLAIN: "the int32 bias if `packed` neither shifted nor stretched",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; floats with five significant digits."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float | np.floating) else str(value)


def half_bias_step(followed: Followed) -> float:
    """The most that rounding the bias to int32 may move an output, in output steps."""
    held = followed.kernel.constants
    return float((held["x_scale"] * np.abs(held["w_scale"])).max() / held["y_scale"] / 2)


def moves(followed: Followed, key: str) -> float:
    """The most that a computation moves a value that is not clipped, in steps, from the same formula in float64."""
    quantizer = followed.chain.writes
    bounds = quantizer.quant_min, quantizer.quant_max
    return float(np.abs(np.clip(followed.ratios[key], *bounds) - np.clip(followed.ratios[EXACT], *bounds)).max())


def differ(followed: Followed, key: str, other: str = PYTORCH) -> tuple[int, str]:
    """(codes that differ, how far from a tie PyTorch's value stands at the farthest of them)."""
    unequal = followed.codes[key] != followed.codes[other]
    far = tie_distance(followed.ratios[PYTORCH][unequal])
    return int(unequal.sum()), f"{far.max():.2g}" if far.size else NONE


def ladder(followed: Followed) -> str:
    """What each computation does to values and codes."""
    rows = [
        (key, news, f"{moves(followed, key):.2g}" if key in followed.ratios else NONE, *differ(followed, key))
        for key, news in NEWS.items()
    ]
    return table(["computed by", "new in it", "moves a value by", "codes that differ", "farthest from a tie"], rows)


def layers(every: Sequence[Followed], kernels: Mapping[str, Executed]) -> str:
    """All layers of this form, side by side."""
    rows = []
    for one in every:
        kernel = kernels[one.chain.layer.name]
        policy = f"{one.chain.weight.num_bits}, {one.chain.reads.num_bits} → {one.chain.writes.num_bits}"
        rows.append((
            f"`{one.chain.layer.name}`", policy, f"{kernel.executed}, {kernel.kernel}", one.codes[PYTORCH].size,
            differ(one, REF)[0], *differ(one, KERNEL), f"{half_bias_step(one):.2g}", differ(one, KERNEL, PACKED)[0],
            differ(one, PLAIN)[0],
        ))  # fmt: skip
    head = [
        "layer", "policy: weights, input → output", "executed", "codes", "`ref` differs", "kernel differs",
        "farthest from a tie", "half a bias step", "kernel against `packed` in integers", "not shifted, not stretched",
    ]  # fmt: skip
    return table(head, rows)


def files(ends: Mapping[str, tuple[EndToEnd, float]]) -> str:
    """Whole files from the picture on."""
    rows = [
        (f"`{name}`", sum(t.codes for t in end.tensors.values()), sum(t.flips for t in end.tensors.values()),
         f"{end.flipped.sum()} of {len(end.flipped)}", f"{end.clean_difference:.1g}", f"{agreement:.2%}")
        for name, (end, agreement) in ends.items()
    ]  # fmt: skip
    head = [
        "file", "codes", "differ", "pictures with one that differs", "largest difference of the others' outputs",
        "same class",
    ]  # fmt: skip
    return table(head, rows)

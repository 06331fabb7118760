"""A followed layer as a markdown section."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.one_layer_codes import KERNEL, PACKED, PYTORCH, REF, Followed, tie_distance
from benchmarks.one_layer_file import INPUTS, load
from benchmarks.one_layer_table import cell, table
from mixbit.export.containers import container

Array = npt.NDArray[Any]
Place = tuple[int, int, int, int]

# What the runtime appends to a name of its own: another one in each session.
_UNIQUE = re.compile(r"_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

CHANNELS, PLACES = 2, 4
PLACE = "picture: channel, row, column"


def shown(followed: Followed, picture: int) -> list[Place]:
    """Places along the middle row of the channels with most different codes; last, the code nearest to a tie of all."""
    codes = followed.codes[PYTORCH][picture]
    channels = sorted(range(len(codes)), key=lambda channel: -len(np.unique(codes[channel])))[:CHANNELS]
    row, middle = codes.shape[1] // 2, (codes.shape[2] - PLACES) // 2
    places = [(picture, channel, row, middle + k) for channel in sorted(channels) for k in range(PLACES)]
    quantizer, ratio = followed.chain.writes, followed.ratios[PYTORCH]
    inside = (ratio > quantizer.quant_min) & (ratio < quantizer.quant_max)
    nearest = np.argmin(np.where(inside, tie_distance(ratio), 1.0))
    picture, channel, row, column = (int(index) for index in np.unravel_index(nearest, ratio.shape))
    return [*places, (picture, channel, row, column)]


def window(followed: Followed, place: Place) -> str:
    """What one input channel adds to one output: codes and the bytes that hold them."""
    picture, channel, row, column = place
    read, stored = (x[picture, 0, row - 1 : row + 2, column - 1 : column + 2] for x in (followed.read, followed.stored))
    weight, unpacked = (w[channel, 0] for w in (followed.weight, followed.kernel.constants["w"]))
    quant_min, zero = followed.chain.reads.quant_min, int(followed.kernel.constants["x_zero_point"])
    pairs = [("policy's codes", read + quant_min, weight), ("bytes of the kernel", stored, unpacked)]
    sums = [int(((x.astype(int) - z) * w).sum()) for (_, x, w), z in zip(pairs, (0, zero), strict=True)]
    rows = [(who, _row(x), _row(w), total) for (who, x, w), total in zip(pairs, sums, strict=True)]
    return table(["", "input, 3 x 3", "weights, 3 x 3", "sum of products"], rows)


def _row(values: Array) -> str:
    return " ".join(str(int(value)) for value in values.reshape(-1))


def bits(followed: Followed, packed: bytes, channel: int) -> str:
    """The first eight weights of a channel, as they lie in the file."""
    name, num_bits = followed.chain.layer.name, followed.chain.weight.num_bits
    kind, stored_bits = container(num_bits, followed.weight.size)
    stored = load(packed).graph.initializers[f"{name}.weight" if kind != "int8" else f"{name}.codes"].const_value
    first = channel * followed.weight[0].size
    codes = followed.weight.reshape(-1)[first : first + 8]
    rows = [("policy's codes", _row(codes))]
    if kind == "planes":
        flat = np.unpackbits(stored.numpy()[:, :, 0], axis=1, bitorder="little")[:, first : first + 8]
        rows += [(f"plane {place}, worth {_worth(place, num_bits)}", _row(plane)) for place, plane in enumerate(flat)]
    else:
        content = stored.tobytes()[first * stored_bits // 8 : (first + 8) * stored_bits // 8]
        rows += [(f"bytes of {kind}", content.hex(" "))]
    rows += [("int8 after unpacking", _row(followed.kernel.constants["w"].reshape(-1)[first : first + 8]))]
    return f"`{stored.name}`: {kind}, {stored.nbytes} bytes for {followed.weight.size} weights.\n\n" + table(
        ["", f"weights 0 to 7 of channel {channel}"], rows
    )


def _worth(place: int, num_bits: int) -> int:
    return -(1 << place) if place == num_bits - 1 else 1 << place


def floats(followed: Followed, places: Sequence[Place]) -> str:
    """PyTorch and `ref`."""
    ratios, codes, ref = followed.ratios[PYTORCH], followed.codes[PYTORCH], followed.floats[REF][-1]
    rows = [
        (place_name(at), *(float(step[at]) for step in followed.floats[PYTORCH]), f"{ratios[at]:.5f}", codes[at],
         ref[at], followed.codes[REF][at])
        for at in places
    ]  # fmt: skip
    head = [PLACE, "convolution", "BatchNorm", "ReLU", "/ scale", "code", "`ref`: ReLU", "code"]
    return table(head, rows)


def integers(followed: Followed, places: Sequence[Place]) -> str:
    """`packed` and the kernel."""
    held, kernel = followed.kernel.constants, followed.kernel
    rows = [
        (place_name(at), followed.accumulator[at], held["bias"][at[1]], f"{followed.ratios[PACKED][at]:.5f}",
         followed.codes[PACKED][at], kernel.written[at], kernel.stretched[at], followed.codes[KERNEL][at])
        for at in places
    ]  # fmt: skip
    head = [PLACE, "accumulator", "+ bias", "x scales", "code", "kernel's byte", "stretched", "its code"]
    return table(head, rows)


def place_name(place: Place) -> str:
    return "{}: {}, {}, {}".format(*place)


def inputs(followed: Followed) -> str:
    """What the kernel reads, by the names of the optimized graph."""
    held = {"x": followed.stored} | followed.kernel.constants
    return table(
        ["input of the kernel", "called", "type", "values"],
        [(key, f"`{_UNIQUE.sub('', name)}`", held[key].dtype, span(held[key]))
         for key, name in zip(INPUTS, followed.kernel.inputs, strict=True)],
    )  # fmt: skip


def span(values: Array) -> str:
    low, high = values.min(), values.max()
    count = f"{' x '.join(map(str, values.shape))}: " if values.ndim else ""
    return count + (cell(low) if low == high else f"{cell(low)} to {cell(high)}")

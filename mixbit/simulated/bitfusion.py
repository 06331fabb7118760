"""BitFusion-style time: 2-bit multipliers that fuse to the widths of both operands (https://arxiv.org/abs/1712.01507).

From the paper: a fusion unit of 16 bit-bricks of 2 bits gives 16 products of 2 by 2 bits a cycle, 4 of 4 by 4 or 8 by
2, 1 of 8 by 8, and takes several passes for 16 bits. Ours: the array is always full and never waits for memory (see
`roofline` for that), widths between are rounded up, and a float side counts as 16 bits, because there is no float unit.
"""

import math
from collections.abc import Mapping
from typing import Any

from mixbit.policy import Entry, NumBits

UNITS, BRICKS_PER_UNIT, CYCLES_PER_US = 512, 16, 500
BRICK_BITS = 2
WIDTHS, FLOAT_WIDTH = (2, 4, 8), 16


def layer_us(layer: Mapping[str, Any], entry: Entry) -> float:
    """Whole cycles that all bricks need for the layer's products."""
    bricks = math.prod(_width(bits) // BRICK_BITS for bits in entry)
    cycles = -(-layer["macs"] * bricks // (UNITS * BRICKS_PER_UNIT))
    return float(cycles / CYCLES_PER_US)


def _width(num_bits: NumBits) -> int:
    return FLOAT_WIDTH if num_bits == "float" else next(width for width in WIDTHS if width >= num_bits)

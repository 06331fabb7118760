"""Time in proportion to BitOps, at a stated rate: a yardstick of our own, no machine is like that."""

from collections.abc import Mapping
from typing import Any

from mixbit.policy import Entry, as_number

# Of 512 units that multiply 8 by 8 bits, at 500 MHz: the peak of `bitfusion` and `roofline`, so that all compare.
BITOPS_PER_US = 512 * 64 * 500


def layer_us(layer: Mapping[str, Any], entry: Entry) -> float:
    """BitOps (macs * weight_bits * activation_bits) over the rate; a float side counts as 32 bits."""
    weight_bits, activation_bits = map(as_number, entry)
    return float(layer["macs"] * weight_bits * activation_bits / BITOPS_PER_US)

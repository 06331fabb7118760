"""The longer of computing and moving bytes, layer by layer: https://dl.acm.org/doi/10.1145/1498765.1498785 (roofline).

Ours are the accelerator, with native products of 2, 4 and 8 bits and of floats, and what counts as moved: weights once
a call at their bits, what the layer reads at its activation bits, what it writes at the 8 bits that an int8 kernel
writes; 32 bits wherever the entry is float. Nothing stays in a cache from one layer to the next.
"""

from collections.abc import Mapping
from typing import Any

from mixbit.policy import FLOAT_BITS, Entry, as_number, is_float

# Peak products a us, by the wider of both sides; 8 bits as in `bitfusion`, half as many for twice the width.
MACS_PER_US = {2: 1_024_000, 4: 512_000, 8: 256_000, FLOAT_BITS: 64_000}
BYTES_PER_US = 8_000
OUTPUT_BITS = 8


def layer_us(layer: Mapping[str, Any], entry: Entry) -> float:
    """The longer of products over the peak of their width, and bytes over the bandwidth."""
    weight_bits, activation_bits = map(as_number, entry)
    width = next(width for width in MACS_PER_US if width >= max(weight_bits, activation_bits))
    out_elements = layer["macs"] * layer["out_channels"] // layer["weights"]
    out_bits = FLOAT_BITS if is_float(entry) else OUTPUT_BITS
    bits = layer["weights"] * layer["calls"] * weight_bits + layer["in_elements"] * activation_bits
    moved_bytes = (bits + out_elements * out_bits) / 8
    return float(max(layer["macs"] / MACS_PER_US[width], moved_bytes / BYTES_PER_US))

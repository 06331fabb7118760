"""What makes a dialect: how codes, scales and biases are stored, and which versions a file declares."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from mixbit.export.build import Array, Builder
from mixbit.export.containers import Codes

StoreCodes = Callable[[Builder, str, Codes, int, int], ir.Value]
StoreChannels = Callable[[Builder, str, Array, Array | None, int], tuple[ir.Value, ir.Value | None]]
StoreZeros = Callable[[Builder, int], ir.Value]
Versions = Callable[[Builder], tuple[int, int]]


@dataclass(frozen=True)
class Dialect:
    """A dialect of ONNX.

    Attributes:
        name: of its file.
        emit_codes: (builder, layer, codes, num_bits, shift) -> int8 tensor of the codes, shifted left by `shift`.
        emit_channels: (builder, layer, scale, bias, shift) -> float32 [C] of the scales; of the biases, or None where
            their int32 codes are to be stored.
        emit_zeros: (builder, count) -> int8 [count] of zeros.
        versions: of a finished builder, (opset, IR version).
    """

    name: str
    emit_codes: StoreCodes
    emit_channels: StoreChannels
    emit_zeros: StoreZeros
    versions: Versions

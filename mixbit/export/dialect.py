"""What makes a dialect: how weight codes are stored, and which versions a file declares. All else they share."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from mixbit.export.build import Builder
from mixbit.export.containers import Codes

StoreCodes = Callable[[Builder, str, Codes, int, int], ir.Value]
Versions = Callable[[Builder], tuple[int, int]]


@dataclass(frozen=True)
class Dialect:
    """A dialect of ONNX.

    Attributes:
        name: of its file.
        emit_codes: (builder, layer, codes, num_bits, shift) -> int8 tensor of the codes, shifted left by `shift`.
        versions: of a finished builder, (opset, IR version).
    """

    name: str
    emit_codes: StoreCodes
    versions: Versions

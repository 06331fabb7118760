"""How `packed` holds the scales and biases of a layer: in 16 bits where these hold them exactly, else in 32.

The nodes that turn them into what a kernel needs read constants only: the runtime computes them once, at loading.
"""

import numpy as np
import onnx_ir as ir

from mixbit.export.build import Array, Builder
from mixbit.export.sixteen import exact
from mixbit.models.settle import SCALE_UNIT


def emit_channels(
    build: Builder, name: str, scale: Array, bias: Array | None, shift: int
) -> tuple[ir.Value, ir.Value | None]:
    """Store scales and biases; the float32 tensors [C] of both, the second None where 16 bits do not hold the biases.

    Held in 16 bits of one type they are one tensor [2, C], `<name>.channels`, otherwise `<name>.scale` and
    `<name>.bias`.

    Args:
        build: where nodes go.
        name: of the layer's call.
        scale: float32 [C], of codes shifted left.
        bias: float64 [C].
        shift: by so many bits.
    """
    unit = np.array(SCALE_UNIT / (1 << shift), np.float32)
    scales, biases = exact(scale / unit), None if bias is None else exact(bias)
    if scales is not None and biases is not None and scales.dtype == biases.dtype:
        both = _widened(build, f"{name}.channels", np.stack([scales, biases]))
        rows = [build.step("Gather", [both, build.shared(f"row{row}", np.array(row))]) for row in (0, 1)]
        return build.step("Mul", [rows[0], build.shared(f"unit{shift}", unit)]), rows[1]
    stored = None if biases is None else _widened(build, f"{name}.bias", biases)
    if scales is None:
        return build.constant(f"{name}.scale", scale), stored
    widened = _widened(build, f"{name}.scale", scales)
    return build.step("Mul", [widened, build.shared(f"unit{shift}", unit)]), stored


def emit_bias(build: Builder, name: str, bias: ir.Value | None, codes: Array, scale: ir.Value) -> ir.Value:
    """The dequantized tensor `<name>.b`, whose int32 codes a kernel adds.

    Args:
        build: where nodes go.
        name: of the layer's call.
        bias: float32 [C], from `emit_channels`; without it the codes are stored, as `<name>.bias`.
        codes: int32 [C], `mixbit.export.codes.bias_codes` of the bias.
        scale: float32 [C], of the codes.
    """
    if bias is None:
        integer = build.constant(f"{name}.bias", codes)
    else:
        steps = build.step("Round", [build.step("Div", [bias, scale])])
        integer = build.step("Cast", [steps], {"to": ir.DataType.INT32.value})
    return build.node("DequantizeLinear", [integer, scale], f"{name}.b", {"axis": 0})


def _widened(build: Builder, name: str, held: Array) -> ir.Value:
    return build.step("Cast", [build.constant(name, held)], {"to": ir.DataType.FLOAT.value})

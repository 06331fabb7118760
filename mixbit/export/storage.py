"""How `packed` holds the scales and biases of a layer: in 16 bits where these hold them exactly, else in 32.

The nodes that turn them into what a kernel needs read constants only: the runtime computes them once, at loading.
"""

import numpy as np
import onnx_ir as ir

from mixbit.export.build import Array, Builder
from mixbit.export.sixteen import exact
from mixbit.models.settle import SCALE_UNIT


def emit_scale(build: Builder, name: str, scale: Array, shift: int) -> ir.Value:
    """Store a layer's scales as `<name>.scale`; the float32 tensor [C].

    Args:
        build: where nodes go.
        name: of the layer's call.
        scale: float32 [C], of codes shifted left.
        shift: by so many bits.
    """
    unit = np.float32(SCALE_UNIT / (1 << shift))
    held = exact(scale / unit)
    if held is None:
        return build.constant(f"{name}.scale", scale)
    return build.step("Mul", [_widened(build, f"{name}.scale", held), build.shared(f"unit{shift}", unit)])


def emit_float_bias(build: Builder, name: str, bias: Array) -> ir.Value:
    """Store [C] as `<name>.bias`; the float32 tensor."""
    held = exact(bias)
    stored = bias.astype(np.float32)
    return build.constant(f"{name}.bias", stored) if held is None else _widened(build, f"{name}.bias", held)


def emit_bias(build: Builder, name: str, bias: Array, codes: Array, scale: ir.Value) -> ir.Value:
    """Store a bias as `<name>.bias`; the dequantized tensor `<name>.b`, whose int32 codes a kernel adds.

    Args:
        build: where nodes go.
        name: of the layer's call.
        bias: float64 [C].
        codes: int32 [C], `mixbit.export.codes.bias_codes` of bias; stored unless 16 bits hold bias.
        scale: float32 [C], of the codes.
    """
    if exact(bias) is None:
        integer = build.constant(f"{name}.bias", codes)
    else:
        steps = build.step("Div", [emit_float_bias(build, name, bias), scale])
        integer = build.step("Cast", [build.step("Round", [steps])], {"to": ir.DataType.INT32.value})
    return build.node("DequantizeLinear", [integer, scale], f"{name}.b", {"axis": 0})


def _widened(build: Builder, name: str, held: Array) -> ir.Value:
    return build.step("Cast", [build.constant(name, held)], {"to": ir.DataType.FLOAT.value})

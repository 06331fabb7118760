"""An activation quantizer as integers: QuantizeLinear to uint8, integer Clip, DequantizeLinear."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from mixbit.export.build import SHARED, Builder
from mixbit.export.marker import FakeQuant

UNBOUNDED = (-np.inf, np.inf)


def emit_activation(
    build: Builder,
    quantizer: FakeQuant,
    x: ir.Value,
    name: str,
    *,
    stretch: int = 1,
    bounds: tuple[float, float] = UNBOUNDED,
    pool: Callable[[ir.Value], ir.Value] | None = None,
    forced: bool = False,
) -> ir.Value:
    """Quantize x per tensor; the bytes that are dequantized are the tensor `<name>.codes`.

    Bytes saturate at 0, so with zero point 0 (unsigned) or 2^(num_bits - 1) (signed) only the top needs a Clip; an
    unsigned quantizer with zero point 0 also swallows a Relu. Clipping bytes instead of floats keeps int8 kernels.
    Stretched codes need no Clip: their zero point is such that the largest code saturates at 255.

    Args:
        build: where nodes go.
        quantizer: scale [], num_bits and sign.
        x: float tensor.
        name: of the quantizer's tensors.
        stretch: factor on the codes; scale and zero point follow, so values stay. Makes the steps of the int32 biases
            downstream finer.
        bounds: of a Relu or Clip that this quantizer takes over.
        pool: a maximum over windows between x and the quantizer; it is taken of the codes, which changes none of them,
            because rounding is monotonic.
        forced: make the codes an output, and go on from an input `<name>.forced` instead.

    Returns:
        The dequantized tensor, `<name>.dq`.
    """
    zero_point = -quantizer.quant_min
    low, high = (code + zero_point for code in _code_bounds(quantizer, bounds))
    top = quantizer.quant_max + zero_point
    clips = low > 0 or high < (255 if stretch == 1 else top)
    scale, zero = build.constant(f"{name}.scale", quantizer.scale), _byte(build, zero_point)
    count = 1 + clips + (pool is not None) + (stretch > 1)
    stages = iter([f"{name}.{stage}" for stage in ("q", "clipped", "pooled", "codes")[-count:]])
    codes = build.node("QuantizeLinear", [x, scale, zero], next(stages))
    if clips:
        codes = build.node("Clip", [codes, _byte(build, low) if low else None, _byte(build, high)], next(stages))
    if pool is not None:
        pooled = pool(build.step("DequantizeLinear", [codes, scale, zero]))
        codes = build.node("QuantizeLinear", [pooled, scale, zero], next(stages))
    if stretch > 1:
        codes, scale, zero = _stretch(build, (codes, scale, zero), quantizer, stretch, name)
    if forced:
        codes = build.cut(codes, f"{name}.forced", ir.DataType.UINT8)
    return build.node("DequantizeLinear", [codes, scale, zero], f"{name}.dq")


def _stretch(
    build: Builder, read: tuple[ir.Value, ir.Value, ir.Value], quantizer: FakeQuant, factor: int, name: str
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(codes, scale, zero point) after, from those before."""
    # Plus zero, from one scale to a finer: runtimes fuse this to a single vectorized sum of bytes (their product takes
    # twice as long, a BitShift of bytes four times).
    same = plus_zero(build, build.step("DequantizeLinear", list(read)))
    scale = build.step("Div", [read[1], build.shared(f"float{factor}", np.array(factor, np.float32))])
    zero = _byte(build, 255 - factor * quantizer.quant_max)
    return build.node("QuantizeLinear", [same, scale, zero], f"{name}.codes"), scale, zero


def plus_zero(build: Builder, x: ir.Value) -> ir.Value:
    """x, such that a dequantization before and a quantization after become one kernel on bytes."""
    zero, none = f"{SHARED}zero.dq", build.shared("byte0", np.array(0, np.uint8))
    if zero not in build.named:
        with build.apart():
            build.node("DequantizeLinear", [none, build.shared("one.scale", np.array(1, np.float32))], zero)
    return build.step("Add", [x, build.named[zero]])


def _code_bounds(quantizer: FakeQuant, bounds: tuple[float, float]) -> tuple[int, int]:
    # Rounding is monotonic: clipping before the division and clipping codes by the rounded bounds are the same.
    low, high = (float(np.rint(np.float32(bound) / quantizer.scale)) for bound in bounds)
    return int(max(quantizer.quant_min, low)), int(min(quantizer.quant_max, high))


def _byte(build: Builder, value: int) -> ir.Value:
    return build.shared(f"byte{value}", np.array(value, np.uint8))

"""How weight codes of 2 to 8 bits are stored, and the nodes that unpack them once, when the file is loaded."""

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mixbit.costs import CAST_BYTES, CONTAINER_BITS, PLANES_BYTES
from mixbit.export.build import INT2, INT4, Builder
from mixbit.export.codes import pack_planes, place_values

Codes = npt.NDArray[np.int8]


def container(num_bits: int, weights: int) -> tuple[str, int]:
    """(name, bits per weight) of the smallest container for `weights` codes of num_bits.

    2, 4 and 8 bits have element types of their own. Other widths are bit planes of their true size, unless a layer is
    so small that the nodes that unpack them weigh more than the next element type up.
    """
    wider = next(bits for bits in CONTAINER_BITS if bits >= num_bits)
    if wider == num_bits:
        return f"int{wider}", wider
    planes_bytes = num_bits * math.ceil(weights / 8) + PLANES_BYTES
    wider_bytes = math.ceil(weights * wider / 8) + (CAST_BYTES if wider < CONTAINER_BITS[-1] else 0)
    return ("planes", num_bits) if planes_bytes < wider_bytes else (f"int{wider}", wider)


def emit_codes(build: Builder, layer: str, codes: Codes, num_bits: int, shift: int) -> ir.Value:
    """Store codes and unpack them to an int8 tensor named `<layer>.codes`, shaped as codes, shifted left by `shift`.

    Every node reads constants only, so the runtime folds the chain when it loads the file.
    """
    if f"{layer}.codes" in build.named:  # a layer's second call
        return build.named[f"{layer}.codes"]
    name, _ = container(num_bits, codes.size)
    if name == "planes":
        return _emit_planes(build, layer, codes, num_bits, shift)
    if name == "int8":
        return build.constant(f"{layer}.codes", codes << shift)
    stored = build.constant(f"{layer}.weight", codes.astype(INT2 if name == "int2" else INT4))
    if shift == 0:
        return build.node("Cast", [stored], f"{layer}.codes", {"to": ir.DataType.INT8.value})
    wide = build.step("Cast", [stored], {"to": ir.DataType.INT32.value})
    shifted = build.step("Mul", [wide, build.shared(f"shift{shift}", _int32(1 << shift))])
    return build.node("Cast", [shifted], f"{layer}.codes", {"to": ir.DataType.INT8.value})


def _emit_planes(build: Builder, layer: str, codes: Codes, num_bits: int, shift: int) -> ir.Value:
    stored = build.constant(f"{layer}.weight", pack_planes(codes, num_bits))
    eight = build.shared("bit", np.arange(8, dtype=np.uint8))
    bits = build.step("BitShift", [stored, eight], {"direction": "RIGHT"})
    bits = build.step("BitwiseAnd", [bits, build.shared("one", np.array(1, np.uint8))])
    bits = build.step("Cast", [bits], {"to": ir.DataType.INT32.value})
    places = build.shared(f"places{num_bits}_{shift}", place_values(num_bits, shift))
    value, first = build.step("Mul", [bits, places]), build.shared("axis0", _int64(0))
    value = build.step("ReduceSum", [value, first], {"keepdims": 0})
    if codes.size % 8:
        value = build.step("Reshape", [value, build.shared("flat", _int64(-1))])
        value = build.step("Slice", [value, first, build.constant(f"{layer}.count", _int64(codes.size))])
    shape = build.shared(f"shape{'x'.join(map(str, codes.shape))}", np.array(codes.shape, np.int64))
    value = build.step("Reshape", [value, shape])
    return build.node("Cast", [value], f"{layer}.codes", {"to": ir.DataType.INT8.value})


def _int64(value: int) -> npt.NDArray[np.int64]:
    return np.array([value], np.int64)


def _int32(value: int) -> npt.NDArray[np.int32]:
    return np.array(value, np.int32)

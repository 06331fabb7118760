"""The `bytes` dialect: the integers of `packed`, every weight code a whole byte, in an old opset.

For runtimes that do not import 4-bit or 2-bit initializers, or do not fold the nodes that unpack them: OpenVINO, and
ONNX Runtime from 1.14 on. Same scales, biases and codes, and so the same figures as `packed`; a larger file.
"""

import itertools

import numpy as np
import onnx
import onnx_ir as ir

from mixbit.dialects import BYTES as NAME
from mixbit.export.build import Array, Builder
from mixbit.export.containers import Codes
from mixbit.export.dialect import Dialect
from mixbit.export.packed import lower_packed

# Opset -> the IR version that came with it. https://github.com/onnx/onnx/blob/main/docs/Versioning.md
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
# The marker graph is opset 21; this operator means something else before.
_CHANGED_MEANING = {"GroupNormalization": 21}


def lower_bytes(marked: ir.Model, *, forced: bool = False) -> ir.Model:
    """Marker graph -> opset 18, IR 8; later where an operation of the network is not there yet.

    Args:
        marked: from `marker_graph`; not changed.
        forced: cut at every activation quantizer, as `lower_ref` does.
    """
    return lower_packed(marked, forced=forced, dialect=BYTES)


def _emit_codes(build: Builder, layer: str, codes: Codes, _num_bits: int, shift: int) -> ir.Value:
    # Each call of a layer has its own: OpenVINO computes layers whose codes two nodes read in float.
    calls = itertools.chain([layer], (f"{layer}:{call}" for call in itertools.count(2)))
    name = next(f"{call}.codes" for call in calls if f"{call}.codes" not in build.initializers)
    return build.constant(name, codes << shift)


def _emit_channels(
    build: Builder, name: str, scale: Array, _bias: Array | None, _shift: int
) -> tuple[ir.Value, ir.Value | None]:
    return build.constant(f"{name}.scale", scale), None


def _emit_zeros(build: Builder, count: int) -> ir.Value:
    return build.shared(f"zeros{count}", np.zeros(count, np.int8))


def _versions(build: Builder) -> tuple[int, int]:
    opset = next(opset for opset in IR_VERSIONS if all(_is_in(node, opset) for node in build.nodes))
    return opset, IR_VERSIONS[opset]


def _is_in(node: ir.Node, opset: int) -> bool:
    """Whether an operation, with these attributes, means in this opset what it means in the marker graph's."""
    if node.domain or opset == max(IR_VERSIONS):
        return True
    if not onnx.defs.has(node.op_type, opset) or opset < _CHANGED_MEANING.get(node.op_type, 0):
        return False
    return set(node.attributes) <= set(onnx.defs.get_schema(node.op_type, opset).attributes)


BYTES = Dialect(NAME, _emit_codes, _emit_channels, _emit_zeros, _versions)

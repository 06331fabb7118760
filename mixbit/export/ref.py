"""The `ref` dialect: the marker graph with integers, and nothing else changed; every operation stays float.

Exact: in float32 it computes what PyTorch's fake quantization computes. BatchNorm and float biases are kept.
"""

import numpy as np
import onnx_ir as ir

from mixbit.export.activations import emit_activation
from mixbit.export.build import Builder
from mixbit.export.codes import weight_codes
from mixbit.export.marker import OPSET, constant, is_marker, read_marker

IR_VERSION = 10


def lower_ref(marked: ir.Model, *, forced: bool = False) -> ir.Model:
    """Marker graph -> opset 21: INT8 initializer + DequantizeLinear; QuantizeLinear, Clip, DequantizeLinear.

    Args:
        marked: from `marker_graph`; not changed.
        forced: cut at every activation quantizer `q`: its codes become an output `q.codes`, and what reads them reads
            an input `q.forced`; so each layer can be fed another implementation's codes.
    """
    build = Builder(marked.graph.inputs)
    for node in marked.graph:
        if not is_marker(node):
            build.copy(node)
        elif is_weight(node):
            build.values[node.outputs[0]] = emit_weight(build, node)
        else:
            x = build.read(node.inputs[0])
            assert x is not None
            quantizer = read_marker(node)
            build.values[node.outputs[0]] = emit_activation(build, quantizer, x, quantizer.label, forced=forced)
    return build.model(marked.graph.outputs, opset=OPSET, ir_version=IR_VERSION)


def is_weight(marker: ir.Node) -> bool:
    """Whether a marker quantizes an initializer."""
    source = marker.inputs[0]
    return source is not None and source.is_initializer()


def emit_weight(build: Builder, marker: ir.Node) -> ir.Value:
    """int8 codes -> float, per channel of dimension 0 or per tensor."""
    source, quantizer = marker.inputs[0], read_marker(marker)
    assert source is not None
    codes = weight_codes(constant(source), quantizer.scale, quantizer.quant_min, quantizer.quant_max)
    scale = np.broadcast_to(quantizer.scale.reshape(-1), (codes.shape[0],))
    inputs = [build.constant(str(source.name), codes), build.constant(f"{quantizer.name}.scale", scale)]
    return build.node("DequantizeLinear", inputs, f"{quantizer.name}.dq", {"axis": 0})

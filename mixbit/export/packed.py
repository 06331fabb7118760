"""The `packed` dialect: what is deployed. True-size weights, int8 kernels, BatchNorm folded.

Weights are stored in 2 to 8 bits and unpacked to int8 when the file is loaded; activations are bytes with an integer
Clip. Weight codes below 7 bits are shifted left, activation codes stretched over their byte, which leaves the values
as they are and makes the steps of the int32 bias (activation scale * weight scale) finer: otherwise one step can be
half a bias at 2 bits.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from mixbit.dialects import PACKED as NAME
from mixbit.export.activations import UNBOUNDED, emit_activation, plus_zero
from mixbit.export.build import INT2, SHARED, Builder
from mixbit.export.codes import broadcast, stretch_factor, weight_codes, weight_shift
from mixbit.export.containers import emit_codes
from mixbit.export.dialect import Dialect
from mixbit.export.fold import integers
from mixbit.export.layers import Layer, find_layers
from mixbit.export.marker import FakeQuant, constant, is_marker, read_marker
from mixbit.export.ref import emit_weight, is_weight
from mixbit.export.storage import emit_bias, emit_channels

OPSET, IR_VERSION = 21, 10
INT2_OPSET, INT2_IR_VERSION = 25, 13


def lower_packed(marked: ir.Model, *, forced: bool = False, dialect: Dialect | None = None) -> ir.Model:
    """Marker graph -> opset 21, IR 10; opset 25, IR 13 when a 2-bit initializer is present.

    Args:
        marked: from `marker_graph`; not changed.
        forced: cut at every activation quantizer, as `lower_ref` does.
        dialect: another one than `packed`, with versions of its own.
    """
    dialect = dialect or PACKED
    graph = marked.graph
    build = Builder(graph.inputs)
    layers = {id(layer.node): layer for layer in find_layers(graph)}
    absorbed = {id(node): layer for layer in layers.values() for node in layer.absorbed}
    bounds: dict[ir.Value, tuple[float, float]] = {}
    stretches: dict[ir.Value, int] = {}
    for node in graph:
        if id(node) in layers:
            build.values[node.outputs[0]] = _emit_layer(build, dialect, layers[id(node)], stretches)
        elif id(node) in absorbed:
            build.values[node.outputs[0]] = build.values[absorbed[id(node)].node.outputs[0]]
        elif _is_weight(node) and _only_layers_read(node, layers):
            continue
        elif is_marker(node) and is_weight(node):
            build.values[node.outputs[0]] = emit_weight(build, node)
        elif is_marker(node):
            stretches[node.outputs[0]] = _stretch(node, layers)
            build.values[node.outputs[0]] = _emit_quantizer(build, node, stretches, bounds, forced=forced)
        elif _pools_codes(node):
            continue
        elif (swallowed := _swallowed(node)) is not None:
            build.values[node.outputs[0]] = build.values[_source(node)]
            bounds[node.outputs[0]] = swallowed
        else:
            build.copy(node)
    opset, ir_version = dialect.versions(build)
    return build.model(graph.outputs, opset=opset, ir_version=ir_version)


def _source(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _is_weight(node: ir.Node) -> bool:
    maker = _source(node).producer() if node.op_type == "Transpose" else node
    return maker is not None and is_marker(maker) and is_weight(maker)


def _only_layers_read(node: ir.Node, layers: Mapping[int, Layer]) -> bool:
    return all(
        id(reader) in layers or (_is_weight(reader) and _only_layers_read(reader, layers))
        for reader in node.outputs[0].consumers()
    )


def _stretch(node: ir.Node, layers: Mapping[int, Layer]) -> int:
    # Also where a bias step is 1/128 of an output step: on 3-bit digits, one picture in 200 changed its class without.
    readers = [layers.get(id(reader)) for reader in node.outputs[0].consumers()]
    rounds_bias = any(layer is not None and layer.quantizer is not None and layer.map is not None for layer in readers)
    return stretch_factor(read_marker(node).num_bits) if rounds_bias else 1


def _emit_quantizer(
    build: Builder,
    node: ir.Node,
    stretches: Mapping[ir.Value, int],
    bounds: Mapping[ir.Value, tuple[float, float]],
    *,
    forced: bool,
) -> ir.Value:
    quantizer, source, pool = read_marker(node), _source(node), None
    maker = source.producer()
    if maker is not None and _pools_codes(maker):
        pool, source = _pool(build, maker), _source(maker)
    x = build.read(source)
    assert x is not None
    stretch, limits = stretches[node.outputs[0]], bounds.get(source, UNBOUNDED)
    with build.piece("Q"):
        if is_marker(maker):  # from the 8 bits of a kernel's output to the policy's
            x = plus_zero(build, x)
        return emit_activation(
            build, quantizer, x, quantizer.label, stretch=stretch, bounds=limits, pool=pool, forced=forced
        )


def _pools_codes(node: ir.Node) -> bool:
    """Whether a maximum of floats can be one of codes: a quantizer alone reads it, and it alone a kernel's result."""
    if node.op_type != "MaxPool" or node.outputs[0].is_graph_output() or is_marker(_source(node).producer()):
        return False
    readers, beside = node.outputs[0].consumers(), _source(node).consumers()
    return len(node.outputs) == len(readers) == len(beside) == 1 and is_marker(readers[0])


def _pool(build: Builder, node: ir.Node) -> Callable[[ir.Value], ir.Value]:
    return lambda x: build.node("MaxPool", [x], str(node.outputs[0].name), node.attributes)


def _emit_layer(build: Builder, dialect: Dialect, layer: Layer, stretches: Mapping[ir.Value, int]) -> ir.Value:
    x = build.read(layer.node.inputs[0])
    assert x is not None
    if layer.quantizer is None:
        weight, bias = _float_constants(build, layer)
    else:
        with build.piece("W"):
            weight, bias = _integer_constants(build, dialect, layer, layer.quantizer, stretches)
    inputs = [weight] if bias is None else [weight, bias]
    name, output = str(layer.node.name), str(layer.node.outputs[0].name)
    if layer.node.op_type != "MatMul":
        value = build.node(layer.op_type, [x, *inputs], output, layer.node.attributes, node_name=name)
        if layer.quantizer is None and _between_codes(layer):
            # ONNX Runtime would take it for an int8 layer and quantize its weights; never one with a second reader.
            build.node("Shape", [value], f"{name}.shape")
        return value
    # As rows of a Gemm: the runtime has an int8 kernel with a bias for that, and moves the reshapes to the bytes.
    gemm = {"transB": 1}
    if layer.rows is None:
        return build.node("Gemm", [x, *inputs], output, gemm, node_name=name)
    flat = build.node("Reshape", [x, _shape(build, (-1, constant(layer.weight).shape[1]))], f"{name}.in")
    product = build.node("Gemm", [flat, *inputs], f"{name}.rows", gemm, node_name=name)
    return build.node("Reshape", [product, _shape(build, layer.rows)], output)


def _between_codes(layer: Layer) -> bool:
    """Whether a layer reads codes and what it computes becomes codes at once."""
    maker = _source(layer.node).producer()
    readers = (layer.absorbed or (layer.node,))[-1].outputs[0].consumers()
    return is_marker(maker) and any(is_marker(r) or _pools_codes(r) or _swallowed(r) is not None for r in readers)


def _shape(build: Builder, shape: tuple[int, ...]) -> ir.Value:
    return build.shared(f"shape{'x'.join(map(str, shape))}", np.array(shape, np.int64))


def _float_constants(build: Builder, layer: Layer) -> tuple[ir.Value, ir.Value | None]:
    weight, map_ = constant(layer.weight), layer.map
    name = layer.name if layer.unfolded else str(layer.node.name)
    if map_ is None:
        return build.constant(f"{name}.weight", weight), None
    weight = (weight * broadcast(map_.multiplier, weight.ndim)).astype(np.float32)
    return build.constant(f"{name}.weight", weight), build.constant(f"{name}.bias", map_.bias.astype(np.float32))


def _integer_constants(
    build: Builder, dialect: Dialect, layer: Layer, quantizer: FakeQuant, stretches: Mapping[ir.Value, int]
) -> tuple[ir.Value, ir.Value | None]:
    name, maker, map_ = str(layer.node.name), _source(layer.node).producer(), layer.map
    codes = weight_codes(constant(layer.weight), quantizer.scale, quantizer.quant_min, quantizer.quant_max)
    shift = weight_shift(quantizer.num_bits)
    activation_scale = _scale_in_kernel(maker, stretches) if maker is not None and is_marker(maker) else None
    fixed = integers(codes, quantizer.scale, activation_scale or np.float32(1), map_, shift)
    # All calls of a layer share its codes, unless folding changed them.
    owner = layer.name if fixed.codes is codes else name if name != layer.name else f"{name}:1"
    unpacked = dialect.emit_codes(build, owner, fixed.codes, quantizer.num_bits, shift)
    scales, bias = dialect.emit_channels(build, name, fixed.scale, None if map_ is None else map_.bias, shift)
    zeros = dialect.emit_zeros(build, len(fixed.scale)) if layer.op_type == "Gemm" else None
    weight = _emit_weight(build, layer, unpacked, scales, zeros)
    if fixed.bias is None or map_ is None:
        return weight, None
    if activation_scale is None:
        stored = build.constant(f"{name}.bias", map_.bias.astype(np.float32)) if bias is None else bias
        return weight, stored
    # The bias's scale is this product to the last bit; four bytes a channel less than storing it.
    product = build.step("Mul", [scales, _scale_of(build, layer)])
    return weight, emit_bias(build, name, bias, fixed.bias, product)


def _scale_in_kernel(activation: ir.Node, stretches: Mapping[ir.Value, int]) -> np.float32:
    return np.float32(read_marker(activation).scale / np.float32(stretches[activation.outputs[0]]))


def _scale_of(build: Builder, layer: Layer) -> ir.Value:
    """The scale that the layer's input is dequantized with."""
    x = build.values[_source(layer.node)].producer()
    assert x is not None
    scale = x.inputs[1]
    assert scale is not None
    return scale


def _emit_weight(build: Builder, layer: Layer, codes: ir.Value, scales: ir.Value, zeros: ir.Value | None) -> ir.Value:
    # Without a zero point ONNX Runtime does not see a quantized Gemm.
    inputs = [codes, scales] if zeros is None else [codes, scales, zeros]
    return build.node("DequantizeLinear", inputs, f"{layer.node.name}.dq", {"axis": 0})


def _emit_zeros(build: Builder, count: int) -> ir.Value:
    """int8 [count], made when the file is loaded."""
    name = f"{SHARED}zeros{count}"
    if name not in build.named:
        with build.apart():
            build.node("Expand", [build.shared("int0", np.array(0, np.int8)), _shape(build, (count,))], name)
    return build.named[name]


def _swallowed(node: ir.Node) -> tuple[float, float] | None:
    # A Relu or Clip read by activation quantizers only, maybe through a pool, becomes bounds of their integer Clip.
    readers = node.outputs[0].consumers() if node.op_type in {"Relu", "Clip"} else ()
    if (
        not readers
        or node.outputs[0].is_graph_output()
        or not all(is_marker(reader) or _pools_codes(reader) for reader in readers)
    ):
        return None
    if node.op_type == "Relu":
        return (0.0, np.inf)
    limits = [*node.inputs[1:], None, None][:2]
    if any(limit is not None and not limit.is_initializer() for limit in limits):
        return None
    low, high = (None if limit is None else float(constant(limit)) for limit in limits)
    return (-np.inf if low is None else low, np.inf if high is None else high)


def _versions(build: Builder) -> tuple[int, int]:
    narrowest = any(_is_int2(value) for value in build.initializers.values())
    return (INT2_OPSET, INT2_IR_VERSION) if narrowest else (OPSET, IR_VERSION)


def _is_int2(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.numpy().dtype == INT2


PACKED = Dialect(NAME, emit_codes, emit_channels, _emit_zeros, _versions)

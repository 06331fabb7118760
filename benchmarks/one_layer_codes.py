"""One convolution with BatchNorm and ReLU, computed by PyTorch, by `ref`, in integers, and by the executed kernel.

Each is fed the codes that PyTorch's quantizer gave the layer, so what differs is this layer's doing.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.one_layer_file import Array, Kernel, between, load, run_kernel
from mixbit.export.check import Stored, activation_quantizers, record
from mixbit.export.codes import bias_codes, broadcast, weight_codes
from mixbit.export.layers import Layer, find_layers
from mixbit.export.marker import FakeQuant, constant, is_marker, read_marker

PYTORCH, REF, KERNEL = "PyTorch", "`ref`", "kernel"
EXACT, FLOAT_BIAS, PACKED, PLAIN = "exact", "integers, float bias", "`packed` in integers", "not shifted, not stretched"


@dataclass(frozen=True)
class Chain:
    """The layer in the marker graph.

    Attributes:
        layer: convolution and BatchNorm.
        weight: its weight's quantizer.
        reads: the quantizer of its input.
        writes: the quantizer of its output.
        tensors: what the convolution, the BatchNorm and the ReLU make.
    """

    layer: Layer
    weight: FakeQuant
    reads: FakeQuant
    writes: FakeQuant
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Followed:
    """One layer's values over N pictures.

    Attributes:
        chain: where.
        read: uint8 [N, ...], PyTorch's input codes - quant_min.
        stored: uint8 [N, ...], the bytes that hold them in `packed`.
        weight: int8 [C, ...], the policy's codes.
        floats: PyTorch and `ref` -> float32 [N, C, H, W] after the convolution, the BatchNorm, the ReLU.
        accumulator: int64 [N, C, H, W], the sums of products of bytes.
        kernel: what ONNX Runtime executes.
        ratios: computation -> float64 [N, C, H, W], output / scale before it is clipped and rounded.
        codes: computation -> [N, C, H, W], output codes - quant_min.
    """

    chain: Chain
    read: Array
    stored: Array
    weight: Array
    floats: dict[str, list[Array]]
    accumulator: Array
    kernel: Kernel
    ratios: dict[str, Array]
    codes: dict[str, Array]


def find(marked: ir.Model, name: str) -> Chain:
    """A convolution that a BatchNorm, a ReLU and an activation quantizer follow, and nothing beside them."""
    layer = next(layer for layer in find_layers(marked.graph) if layer.name == name)
    nodes = [layer.node, *layer.absorbed]
    for _ in range(2):
        (reader,) = nodes[-1].outputs[0].consumers()
        nodes.append(reader)
    assert [node.op_type for node in nodes[1:3]] == ["BatchNormalization", "Relu"], name
    source = layer.node.inputs[0]
    assert source is not None
    assert is_marker(source.producer())
    assert is_marker(nodes[-1])
    assert layer.quantizer is not None
    tensors = tuple(str(node.outputs[0].name) for node in nodes[:3])
    return Chain(layer, layer.quantizer, read_marker(source.producer()), read_marker(nodes[-1]), tensors)


def follow(model: nn.Module, marked: ir.Model, ref: bytes, packed: bytes, *, name: str, x: Tensor) -> Followed:
    """Compute one layer in every way from equal codes.

    Args:
        model: the quantized network, in evaluation mode.
        marked: its marker graph.
        ref: the file.
        packed: the file.
        name: of the layer, see `find`.
        x: normalized float32 [N, C, H, W].
    """
    chain = find(marked, name)
    recorded = record(model, activation_quantizers(marked), x)
    read = recorded.codes[chain.reads.label]
    ref_stored, packed_stored = (_Stored.of(load(content), chain) for content in (ref, packed))
    *floats, ref_written = between(
        ref, {ref_stored.name: ref_stored.reads.encode(read)}, [*chain.tensors, f"{chain.writes.label}.codes"]
    )
    stored = packed_stored.reads.encode(read)
    kernel = run_kernel(packed, name, stored, stretches=packed_stored.writes.factor > 1)
    weight = weight_codes(
        constant(chain.layer.weight), chain.weight.scale, chain.weight.quant_min, chain.weight.quant_max
    )
    accumulator, ratios = _integers(model.get_submodule(name), chain, (read, weight), stored, kernel)
    codes = {key: _rounded(ratio, chain.writes) for key, ratio in ratios.items()}
    codes[PYTORCH] = recorded.codes[chain.writes.label].astype(int)
    codes[REF] = ref_stored.writes.decode(ref_written).astype(int)
    codes[KERNEL] = packed_stored.writes.decode(kernel.stretched).astype(int)
    ratios[PYTORCH] = recorded.ratios[chain.writes.label].astype(float)
    ratios[REF] = (floats[-1] / chain.writes.scale).astype(float)
    simulated = _simulate(model, chain, x)
    return Followed(chain, read, stored, weight, {PYTORCH: simulated, REF: floats}, accumulator, kernel, ratios, codes)


def tie_distance(ratio: Array) -> Array:
    """Steps from each value to the nearest point halfway between two codes."""
    return np.abs(ratio - np.floor(ratio) - 0.5)


@dataclass(frozen=True)
class _Stored:
    """How a file holds the codes that a layer reads and writes; the name of what it reads."""

    name: str
    reads: Stored
    writes: Stored

    @classmethod
    def of(cls, file: ir.Model, chain: Chain) -> "_Stored":
        """Of `ref` or `packed`."""
        name, written = f"{chain.reads.label}.codes", f"{chain.writes.label}.codes"
        return cls(name, Stored.of(file, chain.reads, name), Stored.of(file, chain.writes, written))


def _simulate(model: nn.Module, chain: Chain, x: Tensor) -> list[Array]:
    """PyTorch's floats after the convolution, the BatchNorm and the ReLU."""
    batchnorm = str(chain.layer.absorbed[-1].inputs[1].name).removesuffix(".weight")
    seen: list[Array] = []
    hooks = [
        *(
            model.get_submodule(module).register_forward_hook(lambda _module, _x, y: seen.append(y.numpy()))
            for module in (chain.layer.name, batchnorm)
        ),
        model.get_submodule(chain.writes.name).register_forward_pre_hook(lambda _module, x: seen.append(x[0].numpy())),
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def _integers(
    convolution: nn.Module, chain: Chain, codes: tuple[Array, Array], stored: Array, kernel: Kernel
) -> tuple[Array, dict[str, Array]]:
    """(the kernel's accumulator, computation -> output / scale), without rounding but that of the constants."""
    held, (read, weight), map_ = kernel.constants, codes, chain.layer.map
    product = _convolve(convolution, read.astype(int) + chain.reads.quant_min, weight)
    accumulator = _convolve(
        convolution, stored.astype(int) - held["x_zero_point"], held["w"].astype(int) - held["w_zero_point"]
    )
    scale, plain = chain.writes.scale.astype(float), chain.weight.scale * map_.multiplier * chain.reads.scale
    step, plain_bias = held["w_scale"].astype(float) * held["x_scale"], bias_codes(map_.bias, plain)
    bias, step, plain, plain_bias, float_bias = (
        broadcast(array, 3) for array in (held["bias"], step, plain, plain_bias, map_.bias)
    )
    return accumulator, {
        EXACT: (product * plain + float_bias) / scale,
        FLOAT_BIAS: (accumulator * step + float_bias) / scale,
        PACKED: (accumulator + bias) * step / held["y_scale"],
        PLAIN: (product + plain_bias) * plain / scale,
    }


def _convolve(convolution: nn.Module, x: Array, weight: Array) -> Array:
    """Of integers: float64 holds their sums exactly."""
    given = {key: getattr(convolution, key) for key in ("stride", "padding", "dilation", "groups")}
    sums = functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), **given)
    return sums.numpy().astype(np.int64)


def _rounded(ratio: Array, quantizer: FakeQuant) -> Array:
    codes = np.rint(np.clip(ratio, quantizer.quant_min, quantizer.quant_max)) - quantizer.quant_min
    return codes.astype(int)

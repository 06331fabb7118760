"""What is simulated against what is deployed, on integer codes.

Rounding ties flip codes even between two runs of PyTorch with other kernels, so outputs are not compared by a
tolerance. `ref` is fed PyTorch's codes layer by layer and must give equal codes, except where PyTorch's value stands
within `TIE` of a rounding tie. Whole files are compared in `end_to_end.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from mixbit.devices.session import open_session
from mixbit.export.marker import FakeQuant, constant, is_marker, read_marker
from mixbit.export.ref import is_weight
from mixbit.export.save import to_bytes

# In steps of the quantizer.
TIE = 1e-4

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorCheck:
    """Codes of one activation quantizer.

    Attributes:
        codes: compared.
        flips: unequal.
        off_tie: unequal although PyTorch's value is no tie: must be 0 in `ref`.
    """

    codes: int
    flips: int
    off_tie: int


@dataclass(frozen=True)
class Stored:
    """How a dialect stores codes in bytes: byte = factor * (code - quant_min) + offset."""

    factor: int
    offset: int

    @classmethod
    def of(cls, model: ir.Model, quantizer: FakeQuant, tensor: str) -> "Stored":
        """How a lowered model stores one tensor."""
        reader = next(node for node in model.graph if node.op_type == "DequantizeLinear" and _reads(node, tensor))
        scale, zero_point = _scale(reader.inputs[1]), constant(reader.inputs[2])
        factor = int(np.rint(quantizer.scale / scale))
        return cls(factor, int(zero_point) + factor * quantizer.quant_min)

    def encode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Codes - quant_min -> bytes, any shape."""
        stored: npt.NDArray[np.uint8] = (np.arange(256) * self.factor + self.offset).astype(np.uint8)[codes]
        return stored

    def decode(self, stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """Bytes -> codes - quant_min, any shape; -1 where a byte stands between two codes."""
        codes, rest = np.divmod(np.arange(256) - self.offset, self.factor)
        found: npt.NDArray[np.int16] = np.where(rest == 0, codes, -1).astype(np.int16)[stored]
        return found


@dataclass(frozen=True)
class Recorded:
    """What PyTorch computed.

    Attributes:
        ratios: quantizer -> x / scale, float32, as its module saw it.
        codes: quantizer -> codes - quant_min, uint8.
        output: the network's output.
    """

    ratios: dict[str, Array]
    codes: dict[str, npt.NDArray[np.uint8]]
    output: Array


def activation_quantizers(marked: ir.Model) -> list[FakeQuant]:
    """Quantizers of a marker graph that act on activations, in order."""
    return [read_marker(node) for node in marked.graph if is_marker(node) and not is_weight(node)]


def record(model: nn.Module, quantizers: list[FakeQuant], x: Tensor) -> Recorded:
    """Run PyTorch's simulation and note every activation quantizer's input and codes.

    Args:
        model: the module the markers came from, in evaluation mode.
        quantizers: from `activation_quantizers`.
        x: normalized float32 [N, C, H, W].
    """
    seen: dict[str, Array] = {}

    def watch(name: str, scale: npt.NDArray[np.float32]) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0].detach().numpy() / scale

        return hook

    hooks = [model.get_submodule(q.name).register_forward_pre_hook(watch(q.label, q.scale)) for q in quantizers]
    try:
        with torch.no_grad():
            output = model(x).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return Recorded(seen, {q.label: _stored(seen[q.label], q) for q in quantizers}, output)


def check_layers(
    forced: ir.Model, quantizers: list[FakeQuant], recorded: Recorded, x: Tensor, *, threads: int, optimize: bool
) -> tuple[dict[str, TensorCheck], float]:
    """A dialect lowered with `forced=True`, fed PyTorch's codes layer by layer.

    Args:
        forced: that model.
        quantizers: from `activation_quantizers`.
        recorded: what PyTorch computed for x.
        x: normalized float32 [N, C, H, W].
        threads: of ONNX Runtime.
        optimize: False for `ref`, whose nodes run as written; True for `packed`, which gets its int8 kernels.

    Returns:
        (quantizer -> what was found, largest difference of the output computed from PyTorch's last codes).
    """
    session = open_session(to_bytes(forced), threads=threads, optimize=optimize)
    stored = {q.label: Stored.of(forced, q, f"{q.label}.forced") for q in quantizers}
    feeds = {f"{label}.forced": stored[label].encode(codes) for label, codes in recorded.codes.items()}
    feeds["input"] = x.numpy()
    output, *found = session.run(["output", *(f"{q.label}.codes" for q in quantizers)], feeds)
    checks = {
        q.label: _compare(stored[q.label].decode(codes), recorded.codes[q.label], recorded.ratios[q.label])
        for q, codes in zip(quantizers, found, strict=True)
    }
    return checks, float(np.abs(output - recorded.output).max(initial=0.0))


def flip_rate(checks: dict[str, TensorCheck]) -> float:
    """Unequal codes over all codes; 0 without quantizers."""
    return sum(check.flips for check in checks.values()) / max(1, sum(check.codes for check in checks.values()))


def _stored(ratio: Array, quantizer: FakeQuant) -> npt.NDArray[np.uint8]:
    codes = np.rint(np.clip(ratio, quantizer.quant_min, quantizer.quant_max))
    stored: npt.NDArray[np.uint8] = (codes - quantizer.quant_min).astype(np.uint8)
    return stored


def _compare(found: Array, expected: Array, ratio: Array) -> TensorCheck:
    unequal = found != expected
    ratio = ratio[unequal].astype(np.float64)
    distance = np.abs(np.abs(ratio - np.floor(ratio)) - 0.5)
    off_tie = distance > TIE
    # A flip by more than one code is never a tie.
    off_tie |= np.abs(found[unequal].astype(int) - expected[unequal].astype(int)) > 1
    return TensorCheck(expected.size, int(unequal.sum()), int(off_tie.sum()))


def _scale(value: ir.Value | None) -> Array:
    maker = None if value is None else value.producer()
    if maker is None:
        return constant(value).astype(np.float32)
    scale, factor = (constant(given).astype(np.float32) for given in maker.inputs)
    quotient: Array = scale / factor
    return quotient


def _reads(node: ir.Node, tensor: str) -> bool:
    return node.inputs[0] is not None and node.inputs[0].name == tensor

"""The marker graph: a fake-quantized network as ONNX, each quantizer one opaque `mixbit::FakeQuant` node.

Nothing about integers is decided here; the lowerings (`ref.py`, `packed.py`) turn markers into a runtime's dialect.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch import nn

OPSET = 21
DOMAIN = "mixbit"
MARKER = "FakeQuant"
LAYER_OPS = ("Conv", "Gemm", "MatMul")

Array = npt.NDArray[np.generic]

# What tidies shapes and absent biases. BatchNorm fusion is not among them: the lowerings fold it, or keep it.
_RULES = [
    rules.materialize_reshape_shape_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_gemm_rule,
    rules.no_op_expand_rule,
    rules.no_op_cast_rule,
    rules.no_op_transpose_rule,
    rules.dropout_inference_rule,
]


@dataclass(frozen=True)
class FakeQuant:
    """One marker, read.

    Attributes:
        name: dotted path of the quantizer module.
        scale: float32, [] or [C].
        num_bits: 2 to 8.
        signed: whether codes may be negative.
    """

    name: str
    scale: npt.NDArray[np.float32]
    num_bits: int
    signed: bool

    @property
    def label(self) -> str:
        """What tensors of the file are called: `a:` before a policy's quantizer, `o:` before a kernel's output."""
        folder, _, tensor = self.name.partition(".")
        short = {"activation_quantizers": "a", "output_quantizers": "o"}
        return f"{short[folder]}:{tensor}" if folder in short else f"q:{self.name}"

    @property
    def quant_min(self) -> int:
        """Smallest code."""
        return -(1 << self.num_bits - 1) if self.signed else 0

    @property
    def quant_max(self) -> int:
        """Largest code."""
        return (1 << self.num_bits - 1) - 1 if self.signed else (1 << self.num_bits) - 1


def marker_graph(model: nn.Module, input_shape: Sequence[int]) -> ir.Model:
    """Trace `model` in evaluation mode to a tidy ONNX graph with markers; layer nodes carry their layer's name.

    Args:
        model: any module whose quantizers emit `mixbit::FakeQuant` while exporting; left in evaluation mode.
        input_shape: [C, H, W] of one picture; the batch dimension is dynamic.

    Returns:
        Graph with input `input`, output `output` (and `output_1`, ... when there are several).
    """
    example = torch.zeros(2, *input_shape, device=next((p.device for p in model.parameters()), torch.device("cpu")))
    shapes = ({0: torch.export.Dim("batch")},)
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=["input"],
            output_names=["output"],
        )
    assert program is not None
    marked: ir.Model = program.model
    _tidy_(marked)
    _name_layers_(marked.graph)
    return marked


def read_marker(node: ir.Node) -> FakeQuant:
    """The quantizer behind a marker node."""
    attributes = node.attributes
    scale = node.inputs[1]
    assert scale is not None
    assert scale.name is not None
    return FakeQuant(
        name=scale.name.removesuffix(".scale"),
        scale=_squeezed(constant(scale)),
        num_bits=attributes["num_bits"].as_int(),
        signed=bool(attributes["signed"].as_int()),
    )


def is_marker(node: ir.Node | None) -> bool:
    """Whether node is a fake quantizer."""
    return node is not None and node.op_type == MARKER and node.domain == DOMAIN


def constant(value: ir.Value | None) -> Array:
    """The array of an initializer."""
    assert value is not None
    assert value.const_value is not None, f"{value.name} is not a constant"
    return value.const_value.numpy()


def weight_root(node: ir.Node) -> ir.Value | None:
    """The initializer behind a layer's weight input, through its marker and a transpose; None when computed."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    while value is not None and (maker := value.producer()) is not None:
        if not (is_marker(maker) or maker.op_type == "Transpose"):
            return None
        value = maker.inputs[0]
    return value if value is not None and value.is_initializer() else None


def layer_of(node: ir.Node) -> str | None:
    """The layer a Conv, Gemm or MatMul node computes: its weight's name without `.weight`."""
    root = weight_root(node) if node.op_type in LAYER_OPS else None
    if root is None or root.name is None or not root.name.endswith(".weight"):
        return None
    return root.name.removesuffix(".weight")


def _squeezed(scale: Array) -> npt.NDArray[np.float32]:
    array = np.asarray(scale, np.float32)
    return array.reshape(-1) if array.ndim else array


def _tidy_(model: ir.Model) -> None:
    # No deduplication of initializers: equal values of two layers must keep two names.
    passes.InlinePass()(model)
    for _ in range(2):
        optimizer.fold_constants(model, should_fold=_may_fold)
        rewriter.rewrite(model, _RULES)
        passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)


def _may_fold(node: ir.Node) -> bool | None:
    # Turned over, a weight would lose its layer's name.
    source = node.inputs[0] if node.inputs else None
    weight = source is not None and source.is_initializer() and str(source.name).endswith(".weight")
    return False if weight and node.op_type == "Transpose" else None


def _name_layers_(graph: ir.Graph) -> None:
    calls: dict[str, int] = {}
    for node in graph:
        layer = layer_of(node)
        if layer is None:
            continue
        calls[layer] = calls.get(layer, 0) + 1
        node.name = layer if calls[layer] == 1 else f"{layer}:{calls[layer]}"
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = f"{node.name}.out"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter prints progress, logs absent packages and warns about its own internals; errors still surface.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

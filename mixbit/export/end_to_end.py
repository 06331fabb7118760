"""A whole ONNX file against PyTorch's simulation: which codes flip, in how many pictures, and what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from mixbit.devices.session import open_session
from mixbit.export.check import Recorded, Stored, TensorCheck
from mixbit.export.marker import FakeQuant
from mixbit.export.save import to_bytes

# Outputs this close, relative to the largest, come from the same codes.
ALIKE = 1e-3


@dataclass(frozen=True)
class EndToEnd:
    """What a file computed from the pictures alone.

    Attributes:
        tensors: quantizer -> its codes against PyTorch's; `off_tie` is not judged here (0).
        flipped: bool [N], pictures with at least one unequal code.
        differences: [N], each picture's largest difference of an output, over the largest output of all or 1.
    """

    tensors: dict[str, TensorCheck]
    flipped: npt.NDArray[np.bool_]
    differences: npt.NDArray[np.float64]

    @property
    def clean_difference(self) -> float:
        """The largest difference among pictures without a flip; 0 when there are none."""
        return float(self.differences[~self.flipped].max(initial=0.0))


def compare(
    lowered: ir.Model,
    quantizers: Sequence[FakeQuant],
    recorded: Recorded,
    x: Tensor,
    *,
    threads: int,
    optimize: bool = True,
) -> EndToEnd:
    """Run a lowered network from its pictures on.

    Args:
        lowered: from `lower_ref` or `lower_packed`, not forced.
        quantizers: from `activation_quantizers`.
        recorded: what PyTorch computed for x.
        x: normalized float32 [N, C, H, W].
        threads: of ONNX Runtime.
        optimize: False for `ref`, whose nodes run as written; True for `packed`, which gets its int8 kernels.
    """
    labels = [quantizer.label for quantizer in quantizers]
    session = open_session(_with_outputs(to_bytes(lowered), labels), threads=threads, optimize=optimize)
    output, *found = session.run(["output", *(f"{label}.codes" for label in labels)], {"input": x.numpy()})
    flipped, tensors = np.zeros(len(x), np.bool_), {}
    for quantizer, stored in zip(quantizers, found, strict=True):
        codes = Stored.of(lowered, quantizer, f"{quantizer.label}.codes").decode(stored)
        unequal = codes != recorded.codes[quantizer.label]
        tensors[quantizer.label] = TensorCheck(unequal.size, int(unequal.sum()), 0)
        # Where the batch is not the first dimension, any flip may be any picture's.
        by_picture = len(unequal) == len(x)
        flipped |= unequal.reshape(len(x), -1).any(axis=1) if by_picture else unequal.any()
    largest = max(1.0, float(np.abs(recorded.output).max(initial=0.0)))
    differences = np.abs(output.astype(np.float64) - recorded.output).reshape(len(x), -1).max(axis=1) / largest
    return EndToEnd(tensors, flipped, differences)


def compare_files(first: bytes, second: bytes, x: Tensor, *, threads: int) -> dict[str, float]:
    """Two files of one network, on the same pictures.

    Args:
        first: an ONNX file.
        second: another one.
        x: normalized float32 [N, C, H, W].
        threads: of ONNX Runtime.

    Returns:
        {"differing_pictures": with an output that differs by more than `ALIKE` of the largest,
        "largest_output_difference", "same_class": share}.
    """
    one, other = (DeployedModel(content, threads=threads)(x).numpy() for content in (first, second))
    differences = np.abs(one.astype(np.float64) - other).reshape(len(x), -1).max(axis=1)
    limit = ALIKE * max(1.0, float(np.abs(one).max(initial=0.0)))
    same = (one.reshape(len(x), -1).argmax(1) == other.reshape(len(x), -1).argmax(1)).mean()
    return {
        "differing_pictures": int((differences > limit).sum()),
        "largest_output_difference": float(differences.max(initial=0.0)),
        "same_class": float(same),
    }


class DeployedModel(nn.Module):
    """An ONNX file as a callable module: tensor [N, C, H, W] -> output tensor."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        super().__init__()
        self._session: Any = open_session(model, threads=threads)

    def forward(self, x: Tensor) -> Tensor:
        """Run one batch on the CPU."""
        return torch.from_numpy(self._session.run(["output"], {"input": x.numpy()})[0])


def _with_outputs(model: bytes, labels: Sequence[str]) -> bytes:
    import onnx

    loaded = onnx.load_from_string(model)
    loaded.graph.output.extend(
        onnx.helper.make_tensor_value_info(f"{label}.codes", onnx.TensorProto.UINT8, None) for label in labels
    )
    content: bytes = loaded.SerializeToString()
    return content

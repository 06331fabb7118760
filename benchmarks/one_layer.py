"""One layer's codes through PyTorch, `ref.onnx`, `packed.onnx` and the kernel that is executed, as markdown.

A ResNet-8 on digits, trained for seconds, at one mix of bits with 8-bit first and last layers. Everything told is read
from the files or computed by them; `docs/simulated_and_deployed.md` explains it. A minute.

Example: .venv/bin/python -m benchmarks.one_layer --figure docs/one_layer.png
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks import one_layer_table as judged
from benchmarks import one_layer_text as text
from benchmarks.machine import machine
from benchmarks.one_layer_codes import PYTORCH, Followed, follow
from benchmarks.one_layer_figure import draw
from benchmarks.one_layer_file import load
from mixbit.data.digits import digits
from mixbit.data.info import describe
from mixbit.devices.kernels import executed_kernels
from mixbit.export.check import activation_quantizers, record
from mixbit.export.end_to_end import DeployedModel, compare
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.ref import lower_ref
from mixbit.export.save import to_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized
from mixbit.models.resnet import resnet8
from mixbit.policy import Policy
from mixbit.training.batches import Pictures, calibration_pictures, normalize
from mixbit.training.optimizer import Schedule
from mixbit.training.supervised import train_supervised_
from mixbit.training.task import build_task

LAYERS = ("conv", "stages.0.conv1", "stages.1.conv1", "stages.2.conv1")
FLOAT, FINETUNE = Schedule(4, 64, 0.05, 5e-4), Schedule(2, 64, 0.02, 1e-4, scale_learning_rate=0.01)


@dataclass(frozen=True)
class Case:
    """A quantized network, its files and the test pictures."""

    model: nn.Module
    policy: Policy
    marked: ir.Model
    ref: bytes
    packed: bytes
    x: Tensor


def splits() -> dict[str, Pictures]:
    """Train, val and test of digits."""
    arrays = digits(0)
    info = describe(arrays, source="digits", md5=None)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.tensors.items()}
    return {split: Pictures(tensors[f"{split}_x"], tensors[f"{split}_y"], info) for split in ("train", "val", "test")}


def trained(model: nn.Module, data: dict[str, Pictures], schedule: Schedule) -> Any:
    """The model, trained in place."""
    with tempfile.TemporaryDirectory() as folder:
        train_supervised_(
            model, data["train"], data["val"], build_task("classification", ()), schedule,
            checkpoint=Path(folder), progress=lambda *_: None,
        )  # fmt: skip
    return model


def make_case(weight_bits: int, activation_bits: int) -> Case:
    """Train, quantize, fine-tune, export."""
    data = splits()
    shape = data["test"].x.shape[1:]
    model = trained(resnet8(10, 1), data, FLOAT)
    layers = describe_layers(model, shape)
    policy: Policy = {layer["name"]: (weight_bits, activation_bits) for layer in layers["layers"]}
    policy |= {layers["first"]: (8, 8), layers["last"]: (8, 8)}
    quantized = build_quantized(model, layers, policy, calibration_pictures(data["train"], 256, 0))
    marked = marker_graph(trained(quantized, data, FINETUNE), shape)
    x = normalize(data["test"].x, data["test"].info)
    return Case(quantized, policy, marked, to_bytes(lower_ref(marked)), to_bytes(lower_packed(marked)), x)


def whole_files(case: Case) -> str:
    """From the pictures on, codes that differ and classes that agree."""
    quantizers, found = activation_quantizers(case.marked), {}
    recorded = record(case.model, quantizers, case.x)
    for name, content, optimize in (("ref.onnx", case.ref, False), ("packed.onnx", case.packed, True)):
        end = compare(load(content), quantizers, recorded, case.x, threads=1, optimize=optimize)
        output = DeployedModel(content, threads=1)(case.x).numpy()
        found[name] = end, float((output.argmax(1) == recorded.output.argmax(1)).mean())
    return judged.files(found)


def section(case: Case, every: list[Followed], one: Followed, picture: int) -> str:
    """All of it."""
    chain, places, count = one.chain, text.shown(one, picture), one.codes[PYTORCH].size
    kernels = executed_kernels(case.packed, case.policy, threads=1)
    versions = f"PyTorch {torch.__version__.partition('+')[0]}, ONNX Runtime {onnxruntime.__version__}"
    scales = f"input {chain.reads.scale:.6g}, output {chain.writes.scale:.6g}, weights {text.span(chain.weight.scale)}"
    parts = {
        f"`{chain.layer.name}` at W{chain.weight.num_bits}A{chain.reads.num_bits}, {len(case.x)} test pictures. "
        f"Step sizes: {scales}.\n\nWhat input channel 0 adds at {text.place_name(places[0])} "
        f"({text.PLACE}):": text.window(one, places[0]),
        "PyTorch, and `ref.onnx` run node by node:": text.floats(one, places),
        "`packed.onnx`:": text.bits(one, case.packed, places[0][1]),
        f"The kernel, node `{one.kernel.name}` (`{one.kernel.domain}.QLinearConv`):": text.inputs(one),
        "`packed.onnx` in exact integers, and what the kernel wrote:": text.integers(one, places),
        f"All {count} codes against PyTorch's; distances in steps of the output:": judged.ladder(one),
        "All layers of this form:": judged.layers(every, kernels),
        "The whole files, from the pictures on:": whole_files(case),
        f"{versions}; {machine()}.": "",
    }
    return "\n\n".join(f"{said}\n\n{shown}" for said, shown in parts.items()).strip()


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", choices=LAYERS, default="stages.0.conv1")
    parser.add_argument("--weight-bits", type=int, default=3)
    parser.add_argument("--activation-bits", type=int, default=4)
    parser.add_argument("--picture", type=int, default=0, help="of the test split")
    parser.add_argument("--figure", type=Path, help="a PNG of one channel's codes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = make_case(arguments.weight_bits, arguments.activation_bits)
    every = [follow(case.model, case.marked, case.ref, case.packed, name=name, x=case.x) for name in LAYERS]
    one = every[LAYERS.index(arguments.layer)]
    print(section(case, every, one, arguments.picture))
    if arguments.figure:
        draw(one, arguments.picture, arguments.figure)


if __name__ == "__main__":
    main()

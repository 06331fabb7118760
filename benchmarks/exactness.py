"""What is simulated against what is deployed, on `glyphs`: a ResNet at uniform bits, fine-tuned, exported, judged.

Accuracy on all of test of the simulated network and of the file itself, how often they choose the same class, and
flipped codes. Needs `dvc repro glyphs`.

Example: .venv/bin/python benchmarks/exactness.py --model resnet8 --epochs 4 --finetune 1
Example: .venv/bin/python benchmarks/exactness.py --float float_model.safetensors --finetune 2
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from machine import machine

from mixbit.data.arrays import load
from mixbit.data.check import checked
from mixbit.data.info import describe
from mixbit.export.check import activation_quantizers, flip_rate, record
from mixbit.export.compact import compact
from mixbit.export.end_to_end import DeployedModel, compare
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.ref import lower_ref
from mixbit.export.save import to_bytes
from mixbit.models import resnet
from mixbit.models.build import load_checkpoint_
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized
from mixbit.models.settle import settle_
from mixbit.training.batches import Pictures, calibration_pictures, normalize
from mixbit.training.evaluate import judge, predict
from mixbit.training.optimizer import Schedule
from mixbit.training.supervised import train_supervised_
from mixbit.training.task import build_task

DATA = Path(__file__).parents[1] / "data" / "glyphs.safetensors"
WIDTHS = ((8, 8), (4, 4), (3, 3), (2, 2))
CODE_PICTURES = 256


def splits() -> dict[str, Pictures]:
    """Train, val and test."""
    arrays = checked(load(DATA, "glyphs"), "glyphs")
    info = describe(arrays, source="glyphs", md5=None)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.tensors.items()}
    return {split: Pictures(tensors[f"{split}_x"], tensors[f"{split}_y"], info) for split in ("train", "val", "test")}


def trained_(model: torch.nn.Module, data: dict[str, Pictures], schedule: Schedule) -> None:
    """Train in place; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        train_supervised_(
            model, data["train"], data["val"], build_task("classification", ()), schedule,
            checkpoint=Path(folder), progress=lambda *_: None,
        )  # fmt: skip


def row(model: torch.nn.Module, data: dict[str, Pictures]) -> dict[str, float]:
    """One fine-tuned network: simulated and deployed."""
    test, task = data["test"], build_task("classification", ())
    marked = marker_graph(model, test.x.shape[1:])
    packed, quantizers = lower_packed(marked), activation_quantizers(marked)
    simulated = predict(model, test.x, test.info)
    deployed = predict(DeployedModel(to_bytes(compact(packed)), threads=1), test.x, test.info)
    reference = DeployedModel(to_bytes(lower_ref(marked)), threads=1)
    x = normalize(test.x[:CODE_PICTURES], test.info)
    recorded = record(model, quantizers, x)
    exact = compare(lower_ref(marked), quantizers, recorded, x, threads=1, optimize=False)
    return {
        "simulated": round(judge(simulated, test.y, task).metric, 4),
        "deployed": round(judge(deployed, test.y, task).metric, 4),
        "top1_agreement": agreement(simulated, deployed),
        "ref_top1_agreement": agreement(simulated, predict(reference, test.x, test.info)),
        "packed_flip_rate": flip_rate(compare(packed, quantizers, recorded, x, threads=1).tensors),
        "ref_flip_rate": flip_rate(exact.tensors),
        "ref_flipped_pictures": int(exact.flipped.sum()),
        "ref_clean_difference": exact.clean_difference,
    }


def agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """How often two networks choose the same class; outputs [N, classes]."""
    return round(float((one.argmax(1) == other.argmax(1)).double().mean()), 4)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--float", type=Path, help="weights of a trained model; nothing is trained in float then")
    parser.add_argument("--finetune", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = splits()
    model = getattr(resnet, arguments.model)(47, 1)
    if arguments.float:
        load_checkpoint_(model, arguments.float)
    else:
        trained_(model, data, Schedule(arguments.epochs, 64, 0.1, 5e-4))
    model.eval()
    layers = describe_layers(model, data["test"].x.shape[1:])
    rows = {"float": row(model, data)}
    names = [layer["name"] for layer in layers["layers"]]
    for entry in WIDTHS:
        policy = dict.fromkeys(names, entry) | {layers["first"]: (8, 8), layers["last"]: (8, 8)}
        quantized = build_quantized(model, layers, policy, calibration_pictures(data["train"], 256, 0))
        trained_(quantized, data, Schedule(arguments.finetune, 64, 0.02, 1e-4, scale_learning_rate=0.01))
        settle_(quantized)
        rows["w{}a{}".format(*entry)] = row(quantized, data)
        print(json.dumps(rows), flush=True)
    print(json.dumps({"model": arguments.model, "rows": rows, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

"""How far a latency table is off: ResNet-18 and MobileNetV2 shapes, policies that had no part in its calibration.

ResNet-18 on pictures of 64 pixels, MobileNetV2 on 96, 1000 classes, random weights, one thread. The stage itself makes
the table; its held-out policies are more than in an experiment, so that the figures mean something. Goal: mean relative
error under 5 %, rank correlation over 0.97. Figures of a busy machine (`contention_alarm`) are not to be quoted.

Example: .venv/bin/python benchmarks/latency_table.py --held-out 20
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
from machine import machine

from mixbit.models.build import build_model
from mixbit.models.graph import describe_layers
from mixbit.policy import canonical_json
from tasks import latency_table
from tasks.place import ROOT
from tasks.stage import Work

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("mixbit.models.resnet_deep:resnet18", {"num_classes": 1000}, 64),
    "mobilenet_v2": ("mixbit.models.mobilenet:mobilenet_v2", {"num_classes": 1000}, 96),
    "resnet8": ("mixbit.models.resnet:resnet8", {"num_classes": 10}, 32),
}


def table_of(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """What the stage finds for one network."""
    factory, arguments, pixels = NETWORKS[name]
    shape = [3, pixels, pixels]
    info = {"input_shape": shape, "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": []}
    layers = describe_layers(build_model(factory, arguments, (), seed=0), shape)
    inputs = {"layers": folder / "layers", "info": folder / "info"}
    for key, content in (("layers", layers), ("info", info)):
        inputs[key].write_bytes(canonical_json(content))
    work = Work(inputs, {}, folder, folder, lambda *_: None, ROOT, ())
    params = latency_table.Params(factory=factory, arguments=arguments, **settings)
    began_s = time.monotonic()
    figures = latency_table.compute(work, params)
    table = json.loads((folder / "latency_table.json").read_bytes())
    judged = [row for row in table["policies"] if row["held_out"]]
    return {
        "pixels": pixels,
        "layers": len(table["layers"]),
        **{key: round(value, 4) for key, value in figures.items()},
        "measured_us": [round(row["measured_us"], 1) for row in judged],
        "predicted_us": [round(row["predicted_us"], 1) for row in judged],
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--calibration", type=int, default=12, help="mixed policies that the table is fitted to")
    parser.add_argument("--held-out", type=int, default=20, help="mixed policies that it is judged by")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds to keep")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    settings = {"calibration": options.calibration, "held_out": options.held_out, "rounds": options.rounds}
    rows = {}
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = table_of(name, Path(folder), **settings)
    told = f"{machine()}, ONNX Runtime {onnxruntime.__version__}, 1 thread"
    print(json.dumps({"rows": rows, "machine": told}, indent=2))


if __name__ == "__main__":
    main()

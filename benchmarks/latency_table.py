"""How far a latency table is off: ResNet-18 and MobileNetV2 shapes, policies that had no part in its calibration.

ResNet-18 on pictures of 64 pixels, MobileNetV2 on 96, 1000 classes, random weights, one thread. The stage itself makes
the table; its held-out policies are more than in an experiment, so that the figures mean something: `error` is the mean
of the relative error, `error_p90` its 90th percentile, `rank_correlation` is Spearman's. Goal: mean under 5 %, rank
correlation over 0.97. Figures of a busy machine (`contention_alarm`) are not to be quoted.

Example: .venv/bin/python benchmarks/latency_table.py --held-out 40 --output latency_table.json
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

from mixbit.entries import run_names
from mixbit.export.variants import export
from mixbit.models.build import build_model
from mixbit.models.graph import describe_layers
from mixbit.policy import FLOAT_ENTRY, canonical_json
from tasks import latency_table
from tasks.place import ROOT
from tasks.stage import Work

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("mixbit.models.resnet_deep:resnet18", {"num_classes": 1000}, 64),
    "mobilenet_v2": ("mixbit.models.mobilenet:mobilenet_v2", {"num_classes": 1000}, 96),
    "resnet8": ("mixbit.models.resnet:resnet8", {"num_classes": 10}, 32),
}


def inputs_of(name: str, folder: Path) -> dict[str, Path]:
    """What stages read of one network: layers and the data's shape."""
    factory, arguments, pixels = NETWORKS[name]
    shape = [3, pixels, pixels]
    info = {"input_shape": shape, "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": []}
    layers = describe_layers(build_model(factory, arguments, (), seed=0), shape)
    inputs = {"layers": folder / "layers", "info": folder / "info"}
    for key, content in (("layers", layers), ("info", info)):
        inputs[key].write_bytes(canonical_json(content))
    return inputs


def network_file(name: str, inputs: dict[str, Path], folder: Path) -> Path:
    """The network's float file."""
    factory, arguments, _ = NETWORKS[name]
    layers, info = (json.loads(inputs[key].read_bytes()) for key in ("layers", "info"))
    policy = dict.fromkeys(run_names(layers), FLOAT_ENTRY)
    model = build_model(factory, arguments, (), seed=0).eval()
    (folder / "float.onnx").write_bytes(export(model, layers, policy, info))
    return folder / "float.onnx"


def stage_work(inputs: dict[str, Path], folder: Path) -> Work:
    """A stage's inputs, and a folder for what it makes."""
    return Work(inputs, {}, folder, folder, lambda *_: None, ROOT, ())


def table_of(name: str, folder: Path, **settings: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """(figures, latency_table.json) of one network."""
    factory, arguments, _ = NETWORKS[name]
    params = latency_table.Params(factory=factory, arguments=arguments, **settings)
    figures = latency_table.compute(stage_work(inputs_of(name, folder), folder), params)
    return figures, json.loads((folder / "latency_table.json").read_bytes())


def row_of(name: str, **settings: Any) -> dict[str, Any]:
    """What is told of one network."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures, table = table_of(name, Path(folder), **settings)
    judged = [row for row in table["policies"] if row["held_out"]]
    return {
        "settings": settings,
        "pixels": NETWORKS[name][2],
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
    parser.add_argument("--calibration", type=int, default=latency_table.Params.model_fields["calibration"].default)
    parser.add_argument("--held-out", type=int, default=20, help="mixed policies that it is judged by")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds to keep")
    parser.add_argument("--output", type=Path, help="a file for the result; networks that it has already are kept")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    settings = {"calibration": options.calibration, "held_out": options.held_out, "rounds": options.rounds}
    told = f"{machine()}, ONNX Runtime {onnxruntime.__version__}, 1 thread"
    output = options.output
    known = json.loads(output.read_text()) if output is not None and output.is_file() else {}
    rows = known.get("rows", {}) if known.get("machine") == told else {}
    for name in options.networks:
        if rows.get(name, {}).get("settings") != settings:
            rows[name] = row_of(name, **settings)
        if output is not None:
            output.write_text(json.dumps({"rows": rows, "machine": told}, indent=2) + "\n")
    print(json.dumps({"rows": {name: rows[name] for name in options.networks}, "machine": told}, indent=2))


if __name__ == "__main__":
    main()

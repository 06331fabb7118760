"""Latency of our packed files beside ONNX Runtime's own static quantization of the same network, and beside float.

ResNet-18 on pictures of 64 pixels and MobileNetV2 on 96, 1000 classes, random weights. `w8a8` is 8 bits everywhere;
`mixed` has weights of 2 to 6 bits and activations of 4, 8-bit first and last layers. `ort` is
`onnxruntime.quantization.quantize_static` after its own pre-processing: QDQ, weights int8 per channel, activations
uint8. All files hot in one process, blocks interleaved, one thread by its own clock; ratios are formed within a round.

Example: .venv/bin/python benchmarks/int8_latency.py
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from machine import machine
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from mixbit.devices.device import Request
from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.measure import bound_call, run_rounds, timed_calls, with_limits
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import optimized_graph
from mixbit.export.compact import compact
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.mobilenet import mobilenet_v2
from mixbit.models.quantize import build_quantized
from mixbit.models.resnet_deep import resnet18
from mixbit.models.settle import settle_
from mixbit.policy import Policy

NETWORKS = {"resnet18": (resnet18, 64), "mobilenet_v2": (mobilenet_v2, 96)}
CLASSES, CALIBRATION = 1000, 16
MIXED_WEIGHT_BITS = (4, 2, 6, 3, 5)
ORT = "ort"


class Pictures(CalibrationDataReader):
    """One picture at a time, as `quantize_static` asks for them."""

    def __init__(self, x: Tensor) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter([{"input": picture.numpy()} for picture in x.split(1)])

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None at the end."""
        return next(self._feeds, None)


def network(name: str) -> tuple[nn.Module, Tensor]:
    """(network whose BatchNorms have seen pictures, these pictures)."""
    factory, pixels = NETWORKS[name]
    torch.manual_seed(0)
    model, x = factory(CLASSES), torch.randn(CALIBRATION, 3, pixels, pixels)
    with torch.no_grad():
        for _ in range(20):
            model.train()(x)
    return model.eval(), x


def policies(layers: dict[str, Any]) -> dict[str, Policy]:
    """What our files are quantized to."""
    names = [layer["name"] for layer in layers["layers"]]
    mixed: Policy = {name: (MIXED_WEIGHT_BITS[i % len(MIXED_WEIGHT_BITS)], 4) for i, name in enumerate(names)}
    mixed |= {layers["first"]: (8, 8), layers["last"]: (8, 8)}
    return {"w8a8": dict.fromkeys(names, (8, 8)), "mixed": mixed}


def write_ours(model: nn.Module, x: Tensor, folder: Path) -> dict[str, Path]:
    """Float and packed files; refuses one with a layer that does not run int8."""
    shape = list(x.shape[1:])
    layers = describe_layers(model, shape)
    files = {"float": folder / "float.onnx"}
    files["float"].write_bytes(to_bytes(lower_packed(marker_graph(model, shape))))
    for name, policy in policies(layers).items():
        files[name] = folder / f"{name}.onnx"
        quantized = build_quantized(model, layers, policy, x)
        settle_(quantized)
        files[name].write_bytes(to_bytes(compact(lower_packed(marker_graph(quantized, shape)))))
        assert not not_int8(executed_kernels(files[name], policy, threads=1)), name
    return files


def write_theirs(model: nn.Module, x: Tensor, folder: Path) -> Path:
    """ONNX Runtime's static quantization of PyTorch's own export."""
    plain, ready, quantized = (folder / f"{name}.onnx" for name in ("plain", "ready", ORT))
    torch.onnx.export(
        model, (x[:2],), plain, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=21,
        verbose=False, external_data=False, input_names=["input"], output_names=["output"],
    )  # fmt: skip
    quant_pre_process(plain, ready)
    quantize_static(
        ready, quantized, Pictures(x), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return quantized


def measure(files: dict[str, Path], pixels: int, seconds: float) -> dict[str, Any]:
    """Ratios to ONNX Runtime's own file and to float, with the spread over rounds."""
    paths = {name: str(path) for name, path in files.items()}
    request = with_limits(Request(paths, (3, pixels, pixels), rounds=60, limit_s=seconds, block_s=0.05))
    rng = np.random.default_rng(0)
    calls = {name: bound_call(path, request, rng) for name, path in paths.items()}
    timed = {name: timed_calls(call, request) for name, call in calls.items()}
    rounds = run_rounds(calls, timed, request, rng)
    return {
        "rounds": len(rounds),
        "cpu_us": {name: round(float(np.median([one[name].cpu_s for one in rounds])) * 1e6, 1) for name in files},
        **{
            f"over_{base}": {
                name: spread([one[name].cpu_s / one[base].cpu_s for one in rounds]) for name in files if name != base
            }
            for base in (ORT, "float")
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, tenth and ninetieth percentile."""
    return {f"p{q}" if q != 50 else "median": round(float(np.quantile(values, q / 100)), 3) for q in (50, 10, 90)}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=40, help="of measuring, per network")
    parser.add_argument("--keep", type=Path, help="a folder for the files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = {}
    for name in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if options.keep is None else options.keep / name
            folder.mkdir(parents=True, exist_ok=True)
            model, x = network(name)
            files = write_ours(model, x, folder) | {ORT: write_theirs(model, x, folder)}
            graphs = {kind: read_nodes(optimized_graph(path, threads=1)) for kind, path in files.items()}
            rows[name] = {
                "pixels": x.shape[-1],
                **measure(files, x.shape[-1], options.seconds),
                "file_bytes": {kind: path.stat().st_size for kind, path in files.items()},
                "executed": {kind: dict(Counter(n.op_type for n in nodes)) for kind, nodes in graphs.items()},
            }
    told = f"{machine()}, ONNX Runtime {onnxruntime.__version__}, 1 thread"
    print(json.dumps({"rows": rows, "machine": told}, indent=2))


if __name__ == "__main__":
    main()

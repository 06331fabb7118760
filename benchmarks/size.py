"""Bytes of deployed files: weights against parameters * num_bits / 8, the whole file against float and its prediction.

Random weights: size depends on shapes and bits alone. `mixed` gives the layers 2 to 8 bits in turn, `mean4` the widths
4 +- 1 and 4 +- 2 such that the mean over all weights is 4; activations have 4 bits.

Example: .venv/bin/python -m benchmarks.size resnet8 resnet20 resnet18 resnet50 mobilenet_v2
"""

import json
import sys

import torch

from benchmarks.machine import machine
from mixbit.costs import policy_costs
from mixbit.export.compact import compact
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.save import describe, to_bytes
from mixbit.export.size import payload_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.mobilenet import mobilenet_v2
from mixbit.models.quantize import build_quantized
from mixbit.models.resnet import resnet8, resnet20
from mixbit.models.resnet_deep import resnet18, resnet50
from mixbit.models.settle import settle_

NETWORKS = {
    "resnet8": (resnet8, 10), "resnet20": (resnet20, 10),
    "resnet18": (resnet18, 1000), "resnet50": (resnet50, 1000), "mobilenet_v2": (mobilenet_v2, 1000),
}  # fmt: skip
SHAPE = (3, 32, 32)
INFO = {"input_shape": SHAPE, "dtype": "uint8", "mean": [1.0] * 3, "std": [2.0] * 3}
ACTIVATION_BITS = 4


def mean_four(layers: list[dict]) -> list[int]:
    """Widths 2, 3, 5 and 6, each time the one that brings the mean over the weights so far nearest to 4."""
    widths, surplus = [], 0
    for place, layer in enumerate(layers):
        step = 1 + place % 2
        widths.append(4 - step if surplus > 0 else 4 + step)
        surplus += (widths[-1] - 4) * layer["weights"]
    # The largest layers settle what is left.
    for place in sorted(range(len(layers)), key=lambda place: -layers[place]["weights"]):
        if abs(surplus - (widths[place] - 4) * layers[place]["weights"]) < abs(surplus):
            surplus -= (widths[place] - 4) * layers[place]["weights"]
            widths[place] = 4
    return widths


def row(model: torch.nn.Module, layers: dict, policy: dict, num_classes: int) -> dict[str, float]:
    """One file."""
    quantized = build_quantized(model, layers, policy, torch.randn(2, *SHAPE))
    settle_(quantized)
    lowered = lower_packed(marker_graph(quantized, SHAPE))
    info = INFO | {"labels": [str(label) for label in range(num_classes)]}
    inputs = dict.fromkeys(("dataset", "finetuned_model", "info", "layers", "policy"), "0" * 64)
    file_bytes = len(to_bytes(compact(lowered), describe(policy=policy, inputs=inputs, info=info)))
    payload = sum(payload_bytes(layer["weights"], policy[layer["name"]][0]) for layer in layers["layers"])
    weights = [v for name, v in lowered.graph.initializers.items() if name.endswith((".weight", ".codes"))]
    return {
        "mean_bits": round(payload * 8 / sum(layer["weights"] for layer in layers["layers"]), 3),
        "payload_bytes": round(payload),
        "weights_to_payload": round(sum(value.const_value.nbytes for value in weights) / payload, 4),
        "file_bytes": file_bytes,
        "overhead_bytes_per_layer": round((file_bytes - payload) / len(layers["layers"])),
        "predicted_to_file": round(policy_costs(policy, layers)["file_bytes"] / file_bytes, 4),
    }


def main() -> None:
    """Print one JSON object."""
    torch.manual_seed(0)
    rows = {}
    for name in sys.argv[1:] or NETWORKS:
        make, num_classes = NETWORKS[name]
        model = make(num_classes).eval()
        layers = describe_layers(model, SHAPE)
        names, count = [layer["name"] for layer in layers["layers"]], len(layers["layers"])
        mixes = {
            "float": ["float"] * count, "w8": [8] * count, "w4": [4] * count, "w3": [3] * count, "w2": [2] * count,
            "mixed": [2 + place % 7 for place in range(count)], "mean4": mean_four(layers["layers"]),
        }  # fmt: skip
        for mix, widths in mixes.items():
            activations = "float" if mix == "float" else ACTIVATION_BITS
            policy = {layer: (bits, activations) for layer, bits in zip(names, widths, strict=True)}
            found = row(model, layers, policy, num_classes)
            rows.setdefault(name, {})[mix] = found
            found["to_float"] = round(found["file_bytes"] / rows[name]["float"]["file_bytes"], 4)
        print(name, json.dumps(rows[name]), file=sys.stderr, flush=True)
    print(json.dumps({"rows": rows, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()

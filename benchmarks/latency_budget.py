"""A latency in the budget, kept: what was predicted of the chosen policy, and what it takes when measured whole again.

ResNet-18 on pictures of 64 pixels, MobileNetV2 on 96, candidates 8 bit and float, one thread, budgets between what W8A8
and float take. The stages of an experiment do the work: `latency_table`, `policy`, `measured_policy`. Weights are
random and so is the harm of 8 bits in a layer (a fixed seed): what matters here is time. The chosen policies of all
budgets are then measured once more, beside float, in a run that had no part in choosing them (`again`; `when_chosen` is
the run that decided). Goal: within 5 % of the prediction and within the budget; both by ratios to float in the same
run, so that a machine that changes its pace between two runs does not decide. Figures of a busy machine
(`contention_alarm`) are not to be quoted.

Example: .venv/bin/python benchmarks/latency_budget.py --networks resnet18 mobilenet_v2
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from latency_table import NETWORKS, inputs_of, stage_work, table_of
from machine import machine

from mixbit.devices.device import FLOAT, find_device, request_for
from mixbit.entries import run_names, uniform_policy
from mixbit.export.variants import Variants
from mixbit.latency import Table
from mixbit.models.build import build_model
from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY, Policy, canonical_json, load_policy
from tasks import measured_policy, policy

COST = "latency[local]"
GOAL = 0.05


def harms(layers: dict[str, Any]) -> dict[str, Any]:
    """Indicators: some harm of 8 bits in each layer, none of float."""
    rng, found = np.random.default_rng(0), {}
    for name in run_names(layers):
        weight, activation = map(float, rng.uniform(0.5, 1.5, 2))
        found[name] = {"weight": {"8": weight, "float": 0.0}, "activation": {"8": activation, "float": 0.0}}
    return {"layers": found}


def chosen(name: str, limit: str, inputs: dict[str, Path], folder: Path) -> tuple[Policy, dict[str, Any]]:
    """(what the device chose under a limit, choice.json), by the stages of an experiment."""
    factory, arguments, _ = NETWORKS[name]
    folder.mkdir()
    asked = {"budget": {COST: limit}, "num_bits": (8, "float"), "fixed_layers": "none"}
    policy.compute(stage_work(inputs, folder), policy.Params(**asked))
    found = inputs | {"choice": folder / "choice.json"}
    params = measured_policy.Params(factory=factory, arguments=arguments, budget={COST: limit})
    measured_policy.compute(stage_work(found, folder), params)
    choice = json.loads((folder / "choice.json").read_bytes())
    return load_policy((folder / "policy.json").read_bytes(), "policy.json"), choice


def measured(name: str, policies: dict[str, Policy], inputs: dict[str, Path], folder: Path) -> dict[str, Any]:
    """All policies whole, in one run."""
    factory, arguments, _ = NETWORKS[name]
    layers, info = (json.loads(inputs[key].read_bytes()) for key in ("layers", "info"))
    model = build_model(factory, arguments, (), seed=0).eval()
    variants = Variants(model, layers, uniform_policy(layers, INT8_ENTRY, "none", {}), info)
    policies = {FLOAT: dict.fromkeys(run_names(layers), FLOAT_ENTRY), **policies}
    files = {label: folder / f"{label}.onnx" for label in policies}
    for label, one in policies.items():
        files[label].write_bytes(variants.file(one))
    return find_device("local").compare(request_for(files, info["input_shape"], rounds=20))


def judged(run: dict[str, Any], predicted: float, limit: float) -> dict[str, Any]:
    """One measurement beside the prediction and the limit, all relative to float."""
    ratio = run["ratio_to_float"]["median"]
    return {
        "measured_us": round(run["latency_us"], 1),
        "measured_over_float": {key: round(value, 4) for key, value in run["ratio_to_float"].items()},
        "prediction_off": round(predicted / ratio - 1, 4),
        "within_5_percent": abs(predicted / ratio - 1) <= GOAL,
        "within_budget": ratio <= limit,
    }


def row_of(name: str, shares: Sequence[float], folder: Path) -> dict[str, Any]:
    """What is told of one network.

    Args:
        name: of NETWORKS.
        shares: budgets, 0 is what W8A8 takes and 1 what float takes.
        folder: for files.
    """
    began_s = time.monotonic()
    _, found = table_of(name, folder)
    table = Table.from_json(found)
    inputs = inputs_of(name, folder) | {"latency_table.local": folder / "latency_table.json"}
    inputs["indicators"] = folder / "indicators.json"
    inputs["indicators"].write_bytes(canonical_json(harms(json.loads(inputs["layers"].read_bytes()))))
    float_us, w8a8_us = (table.reference_us[reference] for reference in ("float", "w8a8"))
    ratios = {f"budget{at}": (w8a8_us + share * (float_us - w8a8_us)) / float_us for at, share in enumerate(shares)}
    answers = {label: chosen(name, f"{ratio:.4f}x float", inputs, folder / label) for label, ratio in ratios.items()}
    again = measured(name, {label: one for label, (one, _) in answers.items()}, inputs, folder)
    rows = []
    for (label, (one, choice)), limit in zip(answers.items(), ratios.values(), strict=True):
        predicted_us = choice["predicted_us"]["local"]
        told = {
            "float_layers": sum(entry == FLOAT_ENTRY for entry in one.values()),
            "limit_over_float": round(limit, 4),
            "predicted_over_float": round(predicted_us / float_us, 4),
            "limit_us": round(limit * float_us, 1),
            "predicted_us": round(predicted_us, 1),
        }
        runs = {"when_chosen": choice["measured"]["local"], "again": again["models"][label]}
        rows.append(told | {when: judged(run, predicted_us / float_us, limit) for when, run in runs.items()})
    return {
        "layers": len(table.layers),
        "float_us": round(float_us, 1),
        "w8a8_us": round(w8a8_us, 1),
        "table_error": round(table.error, 4),
        "budgets": rows,
        "contention_alarm": found["contention"]["alarm"] or again["contention"]["alarm"],
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75], help="0 is W8A8, 1 is float")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = {}
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row_of(name, options.shares, Path(folder))
    told = f"{machine()}, ONNX Runtime {onnxruntime.__version__}, 1 thread"
    print(json.dumps({"rows": rows, "machine": told}, indent=2))


if __name__ == "__main__":
    main()

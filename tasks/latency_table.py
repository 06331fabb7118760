"""Stage `latency_table`: layers + network -> latency_table.json: what each layer takes on one device, calibrated."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mixbit.config import Settings
from mixbit.devices.device import FLOAT, W8A8
from mixbit.experiment import Arguments, Reference
from tasks.stage import Work

if TYPE_CHECKING:
    from mixbit.devices.device import Device
    from mixbit.export.variants import Variants
    from mixbit.policy import Policy

OUTPUTS = ("latency_table.json",)
FACTS = ("torch", "onnx-ir", "onnxscript", "onnxruntime")

# Files that are open at once, float beside them.
TOGETHER = 6
# Profiles of the uniform files, each in a process of its own: how memory fell out there stays with a process.
PROFILES = 3
ALIKE = ("kind", "in_channels", "out_channels", "groups", "weights", "macs", "in_elements", "calls")


class Params(Settings):
    """The network, where it is measured, and how. Weights do not matter here: they are random.

    Attributes:
        factory: of the model.
        arguments: of the factory.
        device: where; its fingerprint is a declared fact.
        excluded: patterns of layers that stay float.
        calibration: mixed policies that the table is fitted to.
        held_out: mixed policies that it is judged by.
        threads: intra-op threads.
        rounds: interleaved rounds to keep; at least 10 are run.
        block_s: seconds that one block's timed calls should last.
        limit_s: seconds after which no further round of a few files starts.
        seed: of the policies, the pictures and the order within rounds.
    """

    factory: Reference
    arguments: Arguments = Field(default={})
    device: str = "local"
    excluded: tuple[str, ...] = ()
    calibration: int = Field(default=24, ge=1)
    held_out: int = Field(default=8, ge=0)
    threads: int = Field(default=1, ge=1)
    rounds: int = Field(default=12, ge=10)
    block_s: float = Field(default=0.02, gt=0)
    limit_s: float = Field(default=60.0, gt=0)
    seed: int = Field(default=0, ge=0)


def modules(params: Params) -> tuple[str, ...]:
    """The factory's module and the device's backend."""
    from mixbit.devices.device import measuring_module

    return (params.factory.partition(":")[0], measuring_module(params.device))


def facts(params: Params) -> dict[str, str]:
    """The device's fingerprint: a table of another machine, governor or runtime is not this one.

    Raises:
        MisuseError: no such device.
    """
    from mixbit.devices.device import device_facts

    return device_facts(params.device)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Profile the uniform files, measure mixed ones whole, fit and judge the table.

    Raises:
        MixbitError: the network cannot be exported, the device refuses a file, or times that no table describes.
    """
    import torch

    from mixbit.devices.device import dialect_of, find_device
    from mixbit.devices.fingerprint import fingerprint_sha256
    from mixbit.latency_fit import mixed_policies
    from mixbit.models.neighbours import neighbours
    from mixbit.policy import FLOAT_ENTRY, canonical_json

    torch.set_num_threads(params.threads)
    layers, info = (json.loads(work.inputs[name].read_bytes()) for name in ("layers", "info"))
    device = find_device(params.device)
    work.progress(0, 4, "export")
    variants = _variants(work, params, layers, info)
    mixed = mixed_policies(
        variants.policy, layers["shared_activations"], params.calibration + params.held_out, params.seed
    )
    policies: dict[str, Policy] = {FLOAT: dict.fromkeys(variants.policy, FLOAT_ENTRY), W8A8: variants.policy}
    policies |= {f"mixed{number}": policy for number, policy in enumerate(mixed)}
    uniform = _written(variants, work.checkpoint, {name: policies[name] for name in (FLOAT, W8A8)})
    work.progress(1, 4, f"profile on {device.name}")
    kernels = _kernels(device, params, uniform, info["input_shape"], layers)
    executed = device.executed(str(uniform[W8A8].resolve()), params.threads)
    work.progress(2, 4, f"measure {len(policies)} files on {device.name}")
    measured = _measured(device, params, policies, variants, work.checkpoint)
    work.progress(3, 4, "fit")
    table = _table(kernels, neighbours(variants.graph), policies, measured["latency_us"], params)
    fingerprint = device.fingerprint()
    report = {
        **table,
        "device": device.name,
        "dialect": dialect_of(device.name),
        "executed": executed,
        "fingerprint": fingerprint,
        "fingerprint_sha256": fingerprint_sha256(fingerprint),
        "kernels_us": kernels,
        "contention": measured["contention"],
        "throttling": measured["throttling"],
        "settings": params.model_dump(mode="json"),
        "inputs": dict(work.digests),
    }
    (work.out / "latency_table.json").write_bytes(canonical_json(report))
    work.progress(4, 4, "done")
    return _figures(report)


def _variants(work: Work, params: Params, layers: Mapping[str, Any], info: Mapping[str, Any]) -> "Variants":
    from mixbit.devices.device import dialect_of
    from mixbit.entries import excluding, uniform_policy
    from mixbit.export.variants import Variants
    from mixbit.models.build import build_model
    from mixbit.policy import INT8_ENTRY

    model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed)
    widest = uniform_policy(layers, INT8_ENTRY, "none", excluding(params.excluded))
    return Variants(model.eval(), layers, widest, info, dialect_of(params.device))


def _written(variants: "Variants", folder: Path, policies: "Mapping[str, Policy]") -> dict[str, Path]:
    files = {name: folder / f"{name}.onnx" for name in policies}
    for name, policy in policies.items():
        files[name].write_bytes(variants.file(policy))
    return files


def _kernels(
    device: "Device", params: Params, files: Mapping[str, Path], shape: list[int], layers: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Layer -> {float, int8}, us: the median of some profiles; layers that do the same work share their mean."""
    import statistics

    from mixbit.devices.device import request_for
    from mixbit.entries import run_layers
    from mixbit.latency import FLOAT as FLOAT_KERNEL
    from mixbit.latency import INT8
    from mixbit.latency_fit import average_alike

    request = request_for(files, shape, threads=params.threads, seed=params.seed)
    profiles = [device.kernel_times(request) for _ in range(PROFILES)]
    times = {
        name: {layer: statistics.median(one[name][layer] for one in profiles) for layer in profiles[0][name]}
        for name in files
    }
    alike = {layer["name"]: tuple(layer[key] for key in ALIKE) for layer in run_layers(layers)}
    even = {name: average_alike(row, alike) for name, row in times.items()}
    return {name: {FLOAT_KERNEL: even[FLOAT][name], INT8: even[W8A8][name]} for name in alike}


def _measured(
    device: "Device", params: Params, policies: "Mapping[str, Policy]", variants: "Variants", folder: Path
) -> dict[str, Any]:
    """Policy -> us: by ratios to float in the same run, times what float takes on the median. A few files at a time."""
    import statistics

    from mixbit.devices.device import request_for

    others = [name for name in policies if name != FLOAT]
    settings = params.model_dump(include={"threads", "rounds", "block_s", "limit_s", "seed"})
    shape, runs = list(variants.input_shape), []
    for start in range(0, len(others), TOGETHER):
        names = [FLOAT, *others[start : start + TOGETHER]]
        files = _written(variants, folder, {name: policies[name] for name in names})
        runs.append(device.compare(request_for(files, shape, **settings)))
        for file in files.values():
            file.unlink()
    float_us = statistics.median(run["models"][FLOAT]["latency_us"] for run in runs)
    ratios = {name: found["ratio_to_float"]["median"] for run in runs for name, found in run["models"].items()}
    alarms = [run["contention"] for run in runs]
    return {
        "latency_us": {name: ratio * float_us for name, ratio in ratios.items()},
        "contention": max(alarms, key=lambda one: (one["alarm"], one["median"])),
        "throttling": max((run["throttling"] for run in runs), key=lambda one: one["slowed"]),
    }


def _table(
    kernels: Mapping[str, Mapping[str, float]],
    neighbours: Mapping[tuple[str, str], int],
    policies: "Mapping[str, Policy]",
    latency_us: Mapping[str, float],
    params: Params,
) -> dict[str, Any]:
    """The table with its calibration and every policy behind it."""
    from mixbit.latency_fit import calibrated
    from mixbit.policy import is_float

    names = list(policies)
    # A network of few layers has fewer policies than asked, which are shared out alike; one of very few has none to
    # judge by.
    spared = (len(names) - 2) * params.held_out // (params.calibration + params.held_out)
    fitted = names[: len(names) - spared]
    judged = names[len(fitted) :] or fitted
    measured, held_out = ([(policies[name], latency_us[name]) for name in some] for some in (fitted, judged))
    reference_us = {name: latency_us[name] for name in (FLOAT, W8A8)}
    table, calibration = calibrated(kernels, neighbours, measured, held_out, reference_us)
    rows: Sequence[dict[str, Any]] = [
        {
            "name": name,
            "float_layers": [layer for layer, entry in policies[name].items() if is_float(entry)],
            "measured_us": latency_us[name],
            "predicted_us": table.predict_us(policies[name]),
            "held_out": name not in fitted,
        }
        for name in names
    ]
    return table.to_json() | {"calibration": calibration, "policies": rows}


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    fitted = report["calibration"]
    return {
        "error": fitted["error"],
        "error_p90": fitted["error_p90"],
        "largest_error": fitted["largest_error"],
        "rank_correlation": fitted["rank_correlation"],
        "held_out": float(sum(row["held_out"] for row in report["policies"])),
        "float_us": report["reference_us"][FLOAT],
        "w8a8_us": report["reference_us"][W8A8],
        "contention_alarm": float(report["contention"]["alarm"]),
        "throttling_alarm": float(report["throttling"]["alarm"]),
    }

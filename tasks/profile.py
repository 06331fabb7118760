"""Stage `profile`: a deployable + references on one device -> profile.json: latency, memory, executed bits by layer."""

from typing import Any

from pydantic import Field

from mixbit.config import Settings
from mixbit.dialects import DIALECTS
from tasks.stage import Work

OUTPUTS = ("profile.json",)
FACTS = ()


class Params(Settings):
    """How to measure.

    Attributes:
        device: where; its fingerprint is a declared fact.
        batch_size: pictures per call.
        threads: intra-op threads.
        rounds: interleaved rounds to keep; at least 10 are run.
        block_s: seconds that one block's timed calls should last.
        limit_s: seconds after which no further round starts.
        seed: of the pictures and of the order within rounds.
    """

    device: str = "local"
    batch_size: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    rounds: int = Field(default=12, ge=10)
    block_s: float = Field(default=0.02, gt=0)
    limit_s: float = Field(default=60.0, gt=0)
    seed: int = Field(default=0, ge=0)


def modules(params: Params) -> tuple[str, ...]:
    """The device's backend.

    Raises:
        MisuseError: no such device.
    """
    from mixbit.devices.device import measuring_module

    return (measuring_module(params.device),)


def facts(params: Params) -> dict[str, str]:
    """The device's fingerprint: figures of another machine, governor or runtime are not these.

    Raises:
        MisuseError: no such device.
    """
    from mixbit.devices.device import device_facts

    return device_facts(params.device)


def compute(work: Work, params: Params) -> dict[str, float]:
    """Measure the deployable beside its float and W8A8 references, in one run, in the dialect that is given.

    Raises:
        MisuseError: no such device, or the file is no deployable.
        MixbitError: the device refuses a file, or runs a layer in float that should be int8.
    """
    import json

    from mixbit.devices.device import FLOAT, MODEL, W8A8, find_device, request_for
    from mixbit.devices.executed import require_int8
    from mixbit.devices.fingerprint import fingerprint_sha256
    from mixbit.devices.layer_times import slower_in_int8
    from mixbit.policy import canonical_json

    device = find_device(params.device)
    info = json.loads(work.inputs["info"].read_bytes())
    dialect = next(name for name in DIALECTS if name in work.inputs)
    names = {MODEL: dialect, FLOAT: "float_reference", W8A8: "w8a8_reference"}
    settings = params.model_dump(exclude={"device"})
    request = request_for({name: work.inputs[key] for name, key in names.items()}, info["input_shape"], **settings)
    work.progress(0, 1, f"measure {dialect} on {device.name}")
    found = device.profile(request)
    reasons = {name: layer["reason"] for name, layer in found["layers"].items() if "reason" in layer}
    require_int8(reasons, f"the device {device.name}")
    fingerprint = device.fingerprint()
    report = {
        **found,
        "device": device.name,
        "dialect": dialect,
        "fingerprint": fingerprint,
        "fingerprint_sha256": fingerprint_sha256(fingerprint),
        "settings": settings,
        "slower_in_int8": slower_in_int8(found["layers"]),
        "inputs": dict(work.digests),
    }
    (work.out / "profile.json").write_bytes(canonical_json(report))
    work.progress(1, 1, "done")
    return _figures(found) | {"slower_layers": float(len(report["slower_in_int8"]))}


def _figures(found: dict[str, Any]) -> dict[str, float]:
    model, layers = found["latency_us"]["model"], found["layers"]
    figures = {
        "latency_us": model["wall"],
        "latency_us_p10": model["wall_p10"],
        "latency_us_p90": model["wall_p90"],
        "latency_cpu_us": model["cpu"],
        "peak_rss_bytes": float(found["peak_rss_bytes"]["model"]),
        "contention": found["contention"]["median"],
        "contention_alarm": float(found["contention"]["alarm"]),
        "slowed": found["throttling"]["slowed"],
        "throttling_alarm": float(found["throttling"]["alarm"]),
        "int8_layers": float(sum(layer["executed"] == "int8" for layer in layers.values())),
        "layers": float(len(layers)),
    }
    for reference, ratio in found["ratios"].items():
        figures |= {
            f"ratio_to_{reference}": ratio["median"],
            f"ratio_to_{reference}_p10": ratio["p10"],
            f"ratio_to_{reference}_p90": ratio["p90"],
        }
    return figures

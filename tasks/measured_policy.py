"""Stage `measured_policy`: candidate policies + network -> policy.json, choice.json: the device decides, not its table.

Every candidate is exported with weights that do not matter and measured whole, beside float and W8A8, in one run. The
least harmful one that keeps every limit of latency as measured is taken.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from mixbit.config import Settings
from mixbit.devices.device import FLOAT, W8A8
from mixbit.errors import MixbitError
from mixbit.experiment import Arguments, Reference
from mixbit.latency import cost_name, device_of, limit_us
from mixbit.limits import LimitsByCost
from tasks import policy as search_stage
from tasks.stage import Work

OUTPUTS = ("policy.json", "choice.json")
FACTS = ("torch", "onnx-ir", "onnxscript", "onnxruntime")


class Params(Settings):
    """The network, the limits that are measured, and how.

    Attributes:
        factory: of the model; its weights are random.
        arguments: of the factory.
        budget: `latency[DEVICE]` -> limit, as requested.
        excluded: patterns of layers that stay float.
        threads: intra-op threads.
        rounds: interleaved rounds to keep; at least 10 are run.
        block_s: seconds that one block's timed calls should last.
        limit_s: seconds after which no further round starts.
        seed: of the pictures and of the order within rounds.
    """

    factory: Reference
    arguments: Arguments = Field(default={})
    budget: LimitsByCost
    excluded: tuple[str, ...] = ()
    threads: int = Field(default=1, ge=1)
    rounds: int = Field(default=20, ge=10)
    block_s: float = Field(default=0.02, gt=0)
    limit_s: float = Field(default=60.0, gt=0)
    seed: int = Field(default=0, ge=0)


def modules(params: Params) -> tuple[str, ...]:
    """The factory's module and the devices' backends."""
    from mixbit.devices.device import measuring_module

    backends = dict.fromkeys(measuring_module(name) for name in devices(params))
    return (params.factory.partition(":")[0], *backends)


def devices(params: Params) -> list[str]:
    """The devices whose latency is limited."""
    return sorted(str(device_of(name)) for name in params.budget)


def facts(params: Params) -> dict[str, str]:
    """Fingerprints of the devices.

    Raises:
        MisuseError: no such device.
    """
    from mixbit.devices.device import find_device

    found = {name: find_device(name).fingerprint() for name in devices(params)}
    return {f"device.{name}.{key}": value for name, marks in found.items() for key, value in marks.items()}


def compute(work: Work, params: Params) -> dict[str, float]:
    """Export the candidates, measure them, take the best that keeps the limits.

    Raises:
        MixbitError: none keeps them; or the device refuses a file.
    """
    from mixbit.devices.device import dialect_of, find_device, request_for
    from mixbit.policy import canonical_json, dump_policy, parse_policy

    choice, info = (json.loads(work.inputs[name].read_bytes()) for name in ("choice", "info"))
    candidates = choice["candidates"]
    work.progress(0, 2, f"export {len(candidates)} candidates")
    policies = [parse_policy(one["policy"], "candidate") for one in candidates]
    dialects = {name: dialect_of(name) for name in devices(params)}
    files = {dialect: _files(work, params, policies, dialect) for dialect in sorted(set(dialects.values()))}
    settings = params.model_dump(include={"threads", "rounds", "block_s", "limit_s", "seed"})
    found: dict[str, Any] = {}
    for name in devices(params):
        work.progress(1, 2, f"measure on {name}")
        found[name] = find_device(name).compare(request_for(files[dialects[name]], info["input_shape"], **settings))
    for place, candidate in enumerate(candidates):
        candidate["measured"] = {device: run["models"][str(place)] for device, run in found.items()}
    limits_us = {device: _limit(device, run, params) for device, run in found.items()}
    chosen = _chosen(candidates, limits_us, params)
    decided = {name: value for name, value in chosen.items() if name != "policy"}
    references = {device: {name: run["models"][name] for name in (FLOAT, W8A8)} for device, run in found.items()}
    measured = {
        "limits_us": limits_us,
        "dialects": dialects,
        "references": references,
        **{name: {device: run[name] for device, run in found.items()} for name in ("contention", "throttling")},
    }
    choice |= decided | {"candidates": candidates, "measuring": measured}
    (work.out / "policy.json").write_bytes(dump_policy(parse_policy(chosen["policy"], "candidate")))
    (work.out / "choice.json").write_bytes(canonical_json(choice))
    work.progress(2, 2, "done")
    return search_stage.figures(choice) | {
        f"measured_us.{device}": one["latency_us"] for device, one in chosen["measured"].items()
    }


def _files(work: Work, params: Params, policies: Sequence[Mapping[str, Any]], dialect: str) -> dict[str, Path]:
    """Files as they would be deployed, by number; the references beside them."""
    import torch

    from mixbit.entries import excluding, uniform_policy
    from mixbit.export.variants import Variants, export
    from mixbit.models.build import build_model
    from mixbit.policy import FLOAT_ENTRY, INT8_ENTRY

    torch.set_num_threads(params.threads)
    layers, info = (json.loads(work.inputs[name].read_bytes()) for name in ("layers", "info"))
    model = build_model(params.factory, params.arguments, work.search_path, seed=params.seed).eval()
    widest = uniform_policy(layers, INT8_ENTRY, "none", excluding(params.excluded))
    references = Variants(model, layers, widest, info, dialect)
    contents = {FLOAT: references.file(dict.fromkeys(widest, FLOAT_ENTRY)), W8A8: references.file(widest)}
    contents |= {str(place): export(model, layers, policy, info, dialect) for place, policy in enumerate(policies)}
    files = {name: work.checkpoint / f"{dialect}-{name}.onnx" for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    return files


def _limit(device: str, run: Mapping[str, Any], params: Params) -> float:
    """A device's limit in us; a relative one by what the reference took in this very run."""
    reference_us = {name: run["models"][name]["latency_us"] for name in (FLOAT, W8A8)}
    return limit_us(str(params.budget[cost_name(device)]), reference_us)


def _chosen(candidates: Sequence[dict[str, Any]], limits_us: Mapping[str, float], params: Params) -> dict[str, Any]:
    fitting = [
        one for one in candidates if all(one["measured"][d]["latency_us"] <= limit for d, limit in limits_us.items())
    ]
    if fitting:
        return min(fitting, key=lambda one: one["harm"])
    asked = ", ".join(f"{name} {limit}" for name, limit in params.budget.items())
    told = []
    for device, limit in limits_us.items():
        fastest = min(candidates, key=lambda one: one["measured"][device]["latency_us"])
        measured, predicted = fastest["measured"][device]["latency_us"], fastest["predicted_us"][device]
        told.append(f"{device}: {measured:.0f} us measured ({predicted:.0f} us predicted), limit {limit:.0f} us")
    hint = "Allow more time, or more of the other limits of this budget"
    raise MixbitError("budget", f"no policy keeps {asked}", got=f"the fastest on {'; '.join(told)}", hint=hint)

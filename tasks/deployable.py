"""Stage `deployable`: a fine-tuned model -> packed, bytes and ref.onnx, deployable.json, checked. CPU, seconds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mixbit.config import Settings
from mixbit.errors import MixbitError
from mixbit.experiment import Task, user_modules
from tasks.stage import Work

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, fx

    from mixbit.devices.executed import Executed
    from mixbit.export.check import TensorCheck
    from mixbit.policy import Entry
    from mixbit.training.evaluate import Evaluation

OUTPUTS = ("packed.onnx", "bytes.onnx", "ref.onnx", "deployable.json")
FACTS = ("torch", "onnx-ir", "onnxscript", "onnxruntime", "safetensors")

# Above this share of codes that differ without a tie, `ref` is not the network that was trained.
LARGEST_OFF_TIE = 1e-4
# Above this share of pictures with another output, two dialects of a network are not the same network.
LARGEST_DIFFERING = 0.05


class Params(Settings):
    """What changes the files or how they are judged.

    Attributes:
        factory: of the model; its weights come from the fine-tuned model.
        arguments: of the factory.
        task: loss and metric by which the deployed file is judged on test.
        batch_size: pictures per forward pass.
        check_pictures: test pictures whose codes are compared.
        threads: of PyTorch and ONNX Runtime.
    """

    factory: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    task: Literal["classification"] | Task = "classification"
    batch_size: int = Field(default=256, ge=1)
    check_pictures: int = Field(default=256, ge=1)
    threads: int = Field(default=1, ge=1)


def modules(params: Params) -> tuple[str, ...]:
    """Modules of the factory and of the user's loss and metric."""
    return user_modules(params.factory, params.task)


def facts(_params: Params) -> dict[str, str]:
    """The instruction set: it decides which kernels the runtime fuses to, and ties of rounding."""
    import platform

    return {"machine": platform.machine()}


def compute(work: Work, params: Params) -> dict[str, float]:
    """Export, check on codes, judge the deployed file over the test split.

    Raises:
        MixbitError: the fine-tuned model does not fit the policy, ONNX Runtime refuses the file or runs a layer in
            float that should be int8, `ref` computes other codes than PyTorch, or `bytes` something else than `packed`.
    """
    import torch

    from mixbit.devices.executed import not_int8, require_int8
    from mixbit.devices.kernels import executed_kernels
    from mixbit.export.bytes import lower_bytes
    from mixbit.export.compact import compact
    from mixbit.export.marker import marker_graph
    from mixbit.export.packed import lower_packed
    from mixbit.export.ref import lower_ref
    from mixbit.export.save import describe, to_bytes
    from mixbit.training.batches import read_info
    from mixbit.training.task import build_task

    torch.set_num_threads(params.threads)
    info, (model, layers, policy) = read_info(work.inputs["info"]), _model(work, params)
    # Before the export takes seconds: a loss that does not import is the user's to fix now.
    task = build_task(params.task, work.search_path)
    work.progress(0, 4, "export")
    marked = marker_graph(model, info["input_shape"])
    lowered = lower_packed(marked)
    metadata = describe(policy=policy, inputs=work.digests, info=info)
    packed, ref = to_bytes(compact(lowered), metadata), to_bytes(lower_ref(marked))
    whole_bytes = to_bytes(lower_bytes(marked), metadata)
    (work.out / "packed.onnx").write_bytes(packed)
    (work.out / "bytes.onnx").write_bytes(whole_bytes)
    (work.out / "ref.onnx").write_bytes(ref)
    work.progress(1, 4, "executed kernels")
    kernels = executed_kernels(packed, policy, threads=params.threads)
    require_int8(not_int8(kernels), "this machine's ONNX Runtime")
    work.progress(2, 4, "check codes")
    checks = _check_codes(work, params, info, model=model, marked=marked, packed=lowered)
    work.progress(3, 4, "test")
    checks["bytes"] = _check_dialects(work, params, info, packed, whole_bytes)
    judged = _judge(work, params, info, task, model=model, packed=packed)
    checks["top1_agreement"] = judged["top1_agreement"]
    report = _report(layers, policy, kernels, lowered, packed) | {"checks": checks}
    report["files"] = {"packed.onnx": _file(packed), "bytes.onnx": _file(whole_bytes), "ref.onnx": _file(ref)}
    report["inputs"] = dict(work.digests)
    _write(work, report)
    work.progress(4, 4, "done")
    flips = checks["packed"]["flip_rate"]
    return {
        **judged,
        "file_bytes": float(len(packed)),
        "code_flip_rate": flips,
        "not_int8": float(len(report["not_int8"])),
    }


def _model(work: Work, params: Params) -> "tuple[fx.GraphModule, dict[str, Any], dict[str, Entry]]":
    import json

    from safetensors.torch import load_file

    from mixbit.models.build import build_model
    from mixbit.models.quantize import load_quantized
    from mixbit.policy import load_policy

    layers = json.loads(work.inputs["layers"].read_bytes())
    policy = load_policy(work.inputs["policy"].read_bytes(), "policy")
    model = build_model(params.factory, params.arguments, work.search_path, seed=0)
    tensors = load_file(work.inputs["finetuned_model"])
    return load_quantized(model, layers, policy, tensors), layers, policy


def _check_codes(
    work: Work,
    params: Params,
    info: Mapping[str, Any],
    *,
    model: "fx.GraphModule",
    marked: "ir.Model",
    packed: "ir.Model",
) -> dict[str, Any]:
    from mixbit.export import check
    from mixbit.export.end_to_end import compare
    from mixbit.export.packed import lower_packed
    from mixbit.export.ref import lower_ref
    from mixbit.training.batches import normalize, read_pictures

    x = normalize(read_pictures(work.inputs["dataset"], info, "test").x[: params.check_pictures], info)
    quantizers = check.activation_quantizers(marked)
    recorded = check.record(model, quantizers, x)
    exact, difference = check.check_layers(
        lower_ref(marked, forced=True), quantizers, recorded, x, threads=params.threads, optimize=False
    )
    kernels, _ = check.check_layers(
        lower_packed(marked, forced=True), quantizers, recorded, x, threads=params.threads, optimize=True
    )
    deployed = compare(packed, quantizers, recorded, x, threads=params.threads)
    whole = compare(lower_ref(marked), quantizers, recorded, x, threads=params.threads, optimize=False)
    off_tie, codes = sum(c.off_tie for c in exact.values()), sum(c.codes for c in exact.values())
    if off_tie > LARGEST_OFF_TIE * codes:
        worst = max(exact, key=lambda label: exact[label].off_tie)
        what = f"ref.onnx differs from PyTorch in {off_tie} of {codes} codes that are no ties, most at {worst}"
        raise MixbitError("deployable", what, hint="Is there an operation that computes otherwise in ONNX?")
    ref: dict[str, float] = {"codes": codes, "flips": sum(c.flips for c in exact.values()), "off_tie": off_tie}
    ref |= {"flipped_pictures": int(whole.flipped.sum()), "clean_output_difference": whole.clean_difference}
    return {
        "pictures": len(x),
        "ref": {**ref, "largest_output_difference": difference, "tensors": _rates(exact)},
        "packed": {
            "flip_rate": check.flip_rate(deployed.tensors),
            "layer_flip_rate": check.flip_rate(kernels),
            "flipped_pictures": int(deployed.flipped.sum()),
            "tensors": _rates(deployed.tensors),
            "layer_tensors": _rates(kernels),
        },
    }


def _check_dialects(
    work: Work, params: Params, info: Mapping[str, Any], packed: bytes, whole_bytes: bytes
) -> dict[str, float]:
    """Both files hold the same integers: what they compute may differ by rounding between kernels alone."""
    from mixbit.export.end_to_end import compare_files
    from mixbit.training.batches import normalize, read_pictures

    x = normalize(read_pictures(work.inputs["dataset"], info, "test").x[: params.check_pictures], info)
    found = compare_files(packed, whole_bytes, x, threads=params.threads)
    if found["differing_pictures"] > LARGEST_DIFFERING * len(x):
        pictures = f"{found['differing_pictures']} of {len(x)} pictures"
        what = f"bytes.onnx computes something else than packed.onnx for {pictures}"
        raise MixbitError("deployable", what, hint="Is there an operation whose meaning differs between ONNX opsets?")
    return found


def _rates(checks: "Mapping[str, TensorCheck]") -> dict[str, float]:
    return {label: check.flips / max(1, check.codes) for label, check in checks.items()}


def _judge(
    work: Work, params: Params, info: Mapping[str, Any], task: Any, *, model: "fx.GraphModule", packed: bytes
) -> dict[str, float]:
    from mixbit.export.end_to_end import DeployedModel
    from mixbit.training.batches import read_pictures
    from mixbit.training.evaluate import judge, predict

    test = read_pictures(work.inputs["dataset"], info, "test")
    simulated = predict(model, test.x, info, batch_size=params.batch_size)
    deployed = predict(DeployedModel(packed, threads=params.threads), test.x, info, batch_size=params.batch_size)
    return {
        **_figures("simulated", judge(simulated, test.y, task, batch_size=params.batch_size)),
        **_figures("deployed", judge(deployed, test.y, task, batch_size=params.batch_size)),
        "top1_agreement": _agreement(simulated, deployed),
    }


def _figures(side: str, found: "Evaluation") -> dict[str, float]:
    return {
        f"test_metric_{side}": found.metric,
        f"test_loss_{side}": found.loss,
        f"test_metric_{side}_se": found.metric_se,
        f"test_loss_{side}_se": found.loss_se,
    }


def _agreement(simulated: "Tensor", deployed: "Tensor") -> float:
    if simulated.ndim == 1:  # one number a picture: there is no first choice to agree on
        return 1.0
    return float((simulated.argmax(1) == deployed.argmax(1)).double().mean())


def _report(
    layers: Mapping[str, Any],
    policy: "Mapping[str, Entry]",
    kernels: "Mapping[str, Executed]",
    lowered: "ir.Model",
    packed: bytes,
) -> dict[str, Any]:
    from mixbit.devices.executed import not_int8
    from mixbit.export.size import layer_sizes
    from mixbit.policy import policy_sha256

    sizes = layer_sizes(lowered, layers["layers"], policy)
    return {
        "policy_sha256": policy_sha256(policy),
        "layers": {name: kernel.to_json() | sizes.get(name, {}) for name, kernel in kernels.items()},
        "not_int8": not_int8(kernels),
        "size": {
            "file_bytes": len(packed),
            "payload_bytes": sum(size["payload_bytes"] for size in sizes.values()),
            "stored_bytes": sum(size["stored_bytes"] for size in sizes.values()),
        },
    }


def _file(content: bytes) -> dict[str, Any]:
    import hashlib

    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write(work: Work, report: Mapping[str, Any]) -> None:
    from mixbit.policy import canonical_json

    (work.out / "deployable.json").write_bytes(canonical_json(report))

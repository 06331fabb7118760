"""OpenVINO on its CPU, floats really in float32. What it executes is read from its runtime graph.

It compiles for the shape of the pictures, and may join layers in one kernel; that kernel is then the first one's.
https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mixbit.devices.backend import Version, load_backend, not_installed
from mixbit.devices.executed import Executed
from mixbit.devices.onnx_file import read_metadata
from mixbit.devices.runtime_graph import executed_kernel, kernels_of, read_kernels, written_calls
from mixbit.dialects import BYTES
from mixbit.errors import MixbitError
from mixbit.policy import Entry

TITLE = "OpenVINO"
PACKAGES = ("openvino", "numpy")
EXTRA = "openvino"

# The first that was tried; it imports no 2-bit initializer and does not fold bit planes, so `packed` is not for it.
_BYTES = (2026,)
# By default float networks run in bf16 where the CPU can.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
_TELEMETRY = "openvino_telemetry"
_MICROSECOND = timedelta(microseconds=1)


def dialects(version: Version) -> tuple[str, ...]:
    """Dialects that this version loads, best first."""
    return (BYTES,) if version >= _BYTES else ()


def load() -> Any:
    """The module `openvino`; its telemetry, which would report every import, can't be loaded in this process."""
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]  # how Python notes what must not be imported
    try:
        import openvino
    except ModuleNotFoundError:
        raise not_installed(load_backend("openvino"), "device") from None
    return openvino


def open_file(path: Path, *, threads: int, shape: Sequence[int]) -> "_Opened":
    """A file compiled for pictures of one shape."""
    return _Opened(_compiled(path, threads, shape))


def profiled(path: Path, *, threads: int, pictures: Any, folder: Path) -> "_Profiled":  # noqa: ARG001 - no files
    """A file with its performance counters on."""
    return _Profiled(path, threads, pictures)


def executed(path: Path, policy: Mapping[str, Entry], *, threads: int) -> dict[str, Executed]:
    """Layer -> what this machine executes for it, one picture at a time.

    Without VNNI or AMX there still are int8 kernels (`jit_avx2_I8`); they are reported as what they are.
    """
    shape = [1, *read_metadata(path)["preprocessing"]["input_shape"]]
    nodes = list(read_kernels(_compiled(path, threads, shape)))
    written = written_calls(path)
    return {layer: executed_kernel(layer, entry, written[layer], nodes) for layer, entry in policy.items()}


class _Opened:
    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def run(self, pictures: Any) -> Any:
        return self._request.infer({"input": pictures})["output"]

    def bound(self, pictures: Any) -> Callable[[], object]:
        request = self._request
        request.set_input_tensor(load().Tensor(pictures, shared_memory=True))
        return lambda: request.infer(share_outputs=True)


class _Profiled:
    """Counters are means of all calls since compiling, in whole us: each block compiles anew and takes a difference."""

    def __init__(self, path: Path, threads: int, pictures: Any) -> None:
        self._x, self._blocks = pictures, list[dict[str, float]]()
        self._compile = lambda: _compiled(path, threads, pictures.shape, PERF_COUNT=True)
        self._nodes, self._written = list(read_kernels(self._compile())), written_calls(path)

    def run_block(self, warm: int, timed: int) -> None:
        request = self._compile().create_infer_request()
        before = _total_us(request, self._x, warm, warm)
        after = _total_us(request, self._x, timed, warm + timed)
        self._blocks.append({name: max(0.0, us - before[name]) / timed for name, us in after.items()})

    def calls(self) -> list[dict[str, float]]:
        return self._blocks

    def kernels(self, layers: Sequence[str]) -> dict[str, set[str]]:
        taken: set[str] = set()
        found: dict[str, set[str]] = {}
        for layer in [name for name in self._written if name in layers]:
            own = {node.name for node in kernels_of(self._written[layer], self._nodes)} - taken
            taken |= own
            found |= {layer: own} if own else {}
        return found

    def depthwise(self) -> set[str]:
        return {node.name for node in self._nodes if node.is_depthwise}


def _compiled(path: Path, threads: int, shape: Sequence[int], **settings: Any) -> Any:
    openvino = load()
    core = openvino.Core()
    try:
        model = core.read_model(path)
        model.reshape(list(shape))
        return core.compile_model(model, "CPU", {**_SETTINGS, "INFERENCE_NUM_THREADS": threads, **settings})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        hint = f"OpenVINO here is {openvino.get_version().split('-')[0]}; it loads files of the dialect `{BYTES}`"
        raise MixbitError(str(path), f"OpenVINO refuses it: {lines[-1] if lines else error}", hint=hint) from error


def _total_us(request: Any, pictures: Any, calls: int, since: int) -> dict[str, float]:
    """Run; kernel -> us that it took in all `since` calls."""
    for _ in range(calls):
        request.infer({"input": pictures})
    return {info.node_name: info.real_time / _MICROSECOND * since for info in request.profiling_info}

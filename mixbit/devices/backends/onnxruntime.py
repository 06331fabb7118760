"""ONNX Runtime on its CPU: the default backend. What it executes is read from its optimized graph and its profile."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixbit.devices.backend import Version
from mixbit.devices.executed import Executed
from mixbit.devices.kernels import executed_kernels, kernel_nodes
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import import_runtime, open_session
from mixbit.dialects import BYTES, PACKED
from mixbit.policy import Entry

TITLE = "ONNX Runtime"
PACKAGES = ("onnxruntime", "numpy")
EXTRA = "device"

# 1.23 was the first to load 4-bit initializers, 1.24 2-bit ones; 1.14 the first of opset 18, which `bytes` is in.
# https://onnxruntime.ai/docs/reference/compatibility.html
_PACKED, _BYTES = (1, 24), (1, 14)


def dialects(version: Version) -> tuple[str, ...]:
    """Dialects that this version loads, best first."""
    if version >= _PACKED:
        return (PACKED, BYTES)
    return (BYTES,) if version >= _BYTES else ()


def load() -> object:
    """Import the runtime."""
    return import_runtime()


def executed(path: Path, policy: Mapping[str, Entry], *, threads: int) -> dict[str, Executed]:
    """Layer -> what this machine executes for it."""
    return executed_kernels(path, policy, threads=threads)


def open_file(path: Path, *, threads: int, shape: Sequence[int]) -> "_Opened":  # noqa: ARG001 - sessions take any
    """A session of a file."""
    return _Opened(open_session(path, threads=threads))


def profiled(path: Path, *, threads: int, pictures: Any, folder: Path) -> "_Profiled":
    """A session of a file under the profiler."""
    return _Profiled(path, threads, pictures, folder)


class _Opened:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, pictures: Any) -> Any:
        return self._session.run(["output"], {"input": pictures})[0]

    def bound(self, pictures: Any) -> Callable[[], object]:
        session, binding = self._session, self._session.io_binding()
        binding.bind_cpu_input("input", pictures)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return lambda: session.run_with_iobinding(binding)


class _Profiled:
    def __init__(self, path: Path, threads: int, pictures: Any, folder: Path) -> None:
        self._file, self._dump, self._x = path, folder / "optimized.onnx", pictures
        self._session = open_session(path, threads=threads, dump=self._dump, profile=folder / "profile")
        self._timed: list[bool] = []
        self._events: list[dict[str, Any]] | None = None

    def run_block(self, warm: int, timed: int) -> None:
        self._timed += [False] * warm + [True] * timed
        for _ in range(warm + timed):
            self._session.run(None, {"input": self._x})

    def calls(self) -> list[Counter[str]]:
        return [call for call, timed in zip(_calls(self._seen()), self._timed, strict=True) if timed]

    def kernels(self, layers: Sequence[str]) -> dict[str, set[str]]:
        own = kernel_nodes(layers, read_nodes(self._file), read_nodes(self._dump.read_bytes()))
        return {layer: {node.name for node in nodes} for layer, nodes in own.items() if nodes}

    def depthwise(self) -> set[str]:
        return {_node(event) for event in self._seen() if _is_node(event) and _is_depthwise(event)}

    def _seen(self) -> list[dict[str, Any]]:
        if self._events is None:
            self._events = json.loads(Path(self._session.end_profiling()).read_text())
        return self._events


def _calls(events: Sequence[Mapping[str, Any]]) -> list[Counter[str]]:
    """Node -> us, one for each call; a call's own event follows those of its nodes."""
    calls, current = [], Counter[str]()
    for event in events:
        if _is_node(event):
            current[_node(event)] += event["dur"]
        elif event["name"] == "model_run":
            calls.append(current)
            current = Counter()
    return calls


def _is_node(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith("_kernel_time")


def _node(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix("_kernel_time")


def _is_depthwise(event: Mapping[str, Any]) -> bool:
    """Of a float convolution: one input channel to each kernel, but many in all."""
    shapes = [next(iter(shape.values())) for shape in event["args"].get("input_type_shape", [])[:2]]
    return len(shapes) == 2 and len(shapes[1]) == 4 and shapes[1][1] == 1 and shapes[0][1] > 1

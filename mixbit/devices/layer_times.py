"""How long each layer's kernels take, beside the same layer's in the float reference: the runtime's own profile.

In sessions of their own after the whole-model measurement, because the profiler slows what it watches. Blocks of hot
calls of both files alternate in one process. A kernel's time is wall time; what others on the machine take from it is
left out with the extreme quarters of the calls. A float kernel may have taken over an addition that int8 computes
elsewhere, and quantizers between kernels are no layer's: they are in `others_us`.

Run as a program: request JSON on standard input, figures JSON on standard output.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixbit.devices.device import FLOAT, MODEL, Request
from mixbit.devices.kernels import kernel_nodes
from mixbit.devices.onnx_file import read_metadata, read_nodes
from mixbit.devices.parent import end_with_parent
from mixbit.devices.session import open_session

WARM_CALLS, TIMED_CALLS = 3, 10
MIN_ROUNDS, MAX_ROUNDS, LIMIT_S = 2, 8, 1.0
# A layer loses from int8 only by more than the profiler's microseconds and the machine's noise can pretend.
SLOWER_RATIO, SLOWER_US = 1.1, 1.0

Call = Counter[str]


def layer_times(request: Request) -> dict[str, Any]:
    """Times of the deployable's layers.

    Returns:
        {"layers": {layer: {"latency_us", "ratio_to_float", "depthwise" where it is}}, "others_us": {model: what all
        other nodes take}}; a layer that can't be told apart in one of the files is left out.
    """
    layers = list(read_metadata(Path(request.models[MODEL]))["policy"])
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Profiled(request, name, Path(folder)) for name in (MODEL, FLOAT)}
        run_blocks(list(files.values()), MIN_ROUNDS, MAX_ROUNDS, LIMIT_S)
        found = {name: file.times(layers) for name, file in files.items()}
        depthwise = files[FLOAT].depthwise
    return {
        "layers": {
            layer: {"latency_us": us, "ratio_to_float": us / found[FLOAT][0][layer]}
            | ({"depthwise": True} if layer in depthwise else {})
            for layer, us in found[MODEL][0].items()
            if found[FLOAT][0].get(layer)
        },
        "others_us": {name: others for name, (_, others) in found.items()},
    }


def slower_in_int8(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Layer -> ratio, most first, for int8 layers that take longer than in float.

    Args:
        layers: `layers` of profile.json.
    """
    lost = {
        name: layer["ratio_to_float"]
        for name, layer in layers.items()
        if layer["executed"] == "int8"
        and layer.get("ratio_to_float", 0.0) >= SLOWER_RATIO
        and layer["latency_us"] * (1 - 1 / layer["ratio_to_float"]) >= SLOWER_US
    }
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


class Profiled:
    """One file under the profiler."""

    def __init__(self, request: Request, name: str, folder: Path) -> None:
        """Open a file of the request; the profile and the optimized graph are written to `folder`."""
        self._file, self._dump = Path(request.models[name]), folder / f"{name}.onnx"
        self._session = open_session(
            self._file, threads=request.threads, dump=self._dump, profile=folder / f"{name}-profile"
        )
        rng = np.random.default_rng(request.seed)
        self._x = rng.standard_normal((request.batch_size, *request.input_shape), dtype=np.float32)
        self.depthwise: frozenset[str] = frozenset()

    def run(self, calls: int) -> None:
        """Some calls."""
        for _ in range(calls):
            self._session.run(None, {"input": self._x})

    def times(self, layers: Sequence[str]) -> tuple[dict[str, float], float]:
        """(layer -> us, us of all other nodes)."""
        events, names = self.events(), self.kernels(layers)
        per_channel = {_node(event) for event in events if _is_node(event) and _is_depthwise(event)}
        self.depthwise = frozenset(layer for layer, nodes in names.items() if nodes & per_channel)
        hot = hot_calls(events)
        known = frozenset[str]().union(*names.values())
        others = [sum(us for name, us in call.items() if name not in known) for call in hot]
        us_by_layer = {layer: middle([sum(call[n] for n in nodes) for call in hot]) for layer, nodes in names.items()}
        return us_by_layer, middle(others)

    def events(self) -> list[dict[str, Any]]:
        """What the profiler saw; ends it."""
        found: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text())
        return found

    def kernels(self, layers: Sequence[str]) -> dict[str, set[str]]:
        """Layer -> names of its kernels, for the layers that can be told apart."""
        own = kernel_nodes(layers, read_nodes(self._file), read_nodes(self._dump.read_bytes()))
        return {layer: {node.name for node in nodes} for layer, nodes in own.items() if nodes}


def run_blocks(files: Sequence[Profiled], least: int, most: int, limit_s: float) -> None:
    """Blocks of calls, each file in turn: `least` rounds, and up to `most` while the time lasts."""
    rounds, end = 0, time.perf_counter() + limit_s
    while rounds < least or (rounds < most and time.perf_counter() < end):
        for file in files:
            file.run(WARM_CALLS + TIMED_CALLS)
        rounds += 1


def hot_calls(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Node -> us in the order they ran, for each call that is not at the start of a block."""
    return [call for i, call in enumerate(_calls(events)) if i % (WARM_CALLS + TIMED_CALLS) >= WARM_CALLS]


def _calls(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Node -> us, one for each call; a call's own event follows those of its nodes."""
    calls, current = [], Call()
    for event in events:
        if _is_node(event):
            current[_node(event)] += event["dur"]
        elif event["name"] == "model_run":
            calls.append(current)
            current = Call()
    return calls


def _is_node(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith("_kernel_time")


def _node(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix("_kernel_time")


def _is_depthwise(event: Mapping[str, Any]) -> bool:
    """Of a float convolution: one input channel to each kernel, but many in all."""
    shapes = [next(iter(shape.values())) for shape in event["args"].get("input_type_shape", [])[:2]]
    return len(shapes) == 2 and len(shapes[1]) == 4 and shapes[1][1] == 1 and shapes[0][1] > 1


def middle(values: Sequence[float]) -> float:
    """The mean of the middle half."""
    # The profiler counts whole microseconds: the mean of the middle half says more than the median, and is as robust.
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return float(np.mean(ordered[quarter : len(ordered) - quarter]))


if __name__ == "__main__":
    end_with_parent()
    json.dump(layer_times(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

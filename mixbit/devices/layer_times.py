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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixbit.devices.backend import Profiled, load_backend
from mixbit.devices.device import FLOAT, MODEL, Request
from mixbit.devices.onnx_file import read_metadata
from mixbit.devices.parent import end_with_parent

WARM_CALLS, TIMED_CALLS = 3, 10
MIN_ROUNDS, MAX_ROUNDS, LIMIT_S = 2, 8, 1.0
# A layer loses from int8 only by more than the profiler's microseconds and the machine's noise can pretend.
SLOWER_RATIO, SLOWER_US = 1.1, 1.0


def layer_times(request: Request) -> dict[str, Any]:
    """Times of the deployable's layers.

    Returns:
        {"layers": {layer: {"latency_us", "ratio_to_float", "depthwise" where it is}}, "others_us": {model: what all
        other nodes take}}; a layer that can't be told apart in one of the files is left out.
    """
    layers = list(read_metadata(Path(request.models[MODEL]))["policy"])
    with tempfile.TemporaryDirectory() as folder:
        files = {name: profiled(request, name, Path(folder)) for name in (MODEL, FLOAT)}
        run_blocks(list(files.values()), MIN_ROUNDS, MAX_ROUNDS, LIMIT_S)
        found = {name: _times(file, layers) for name, file in files.items()}
        kernels, depthwise = files[FLOAT].kernels(layers), files[FLOAT].depthwise()
    return {
        "layers": {
            layer: {"latency_us": us, "ratio_to_float": us / found[FLOAT][0][layer]}
            | ({"depthwise": True} if kernels[layer] & depthwise else {})
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


def profiled(request: Request, name: str, folder: Path) -> Profiled:
    """One file of a request under its runtime's profiler, which writes to a folder of its own in `folder`."""
    own = folder / name
    own.mkdir()
    rng = np.random.default_rng(request.seed)
    pictures = rng.standard_normal((request.batch_size, *request.input_shape), dtype=np.float32)
    backend = load_backend(request.backend)
    return backend.profiled(Path(request.models[name]), threads=request.threads, pictures=pictures, folder=own)


def _times(file: Profiled, layers: Sequence[str]) -> tuple[dict[str, float], float]:
    """(layer -> us, us of all other nodes)."""
    calls, names = file.calls(), file.kernels(layers)
    known = frozenset[str]().union(*names.values())
    others = [sum(us for name, us in call.items() if name not in known) for call in calls]
    us_by_layer = {
        layer: middle([sum(call.get(n, 0.0) for n in nodes) for call in calls]) for layer, nodes in names.items()
    }
    return us_by_layer, middle(others)


def run_blocks(files: Sequence[Profiled], least: int, most: int, limit_s: float) -> None:
    """Blocks of calls, each file in turn: `least` rounds, and up to `most` while the time lasts."""
    rounds, end = 0, time.perf_counter() + limit_s
    while rounds < least or (rounds < most and time.perf_counter() < end):
        for file in files:
            file.run_block(WARM_CALLS, TIMED_CALLS)
        rounds += 1


def middle(values: Sequence[float]) -> float:
    """The mean of the middle half."""
    # Profilers count whole microseconds: the mean of the middle half says more than the median, and is as robust.
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return float(np.mean(ordered[quarter : len(ordered) - quarter]))


if __name__ == "__main__":
    end_with_parent()
    json.dump(layer_times(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

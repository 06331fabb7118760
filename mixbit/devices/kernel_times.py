"""Where a whole file's time goes, layer by layer: the rows of a latency table.

A layer is given the time of its kernels and of what follows them up to the next layer's (pooling, sums, quantizers);
what comes before the first layer is the first one's. So layers add up to all that the profiler saw. Files take turns
in blocks of hot calls, as in `layer_times.py`.

Run as a program: request JSON on standard input, times JSON on standard output.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from mixbit.devices.backend import Profiled
from mixbit.devices.device import Request
from mixbit.devices.layer_times import middle, profiled, run_blocks
from mixbit.devices.onnx_file import read_metadata
from mixbit.devices.parent import end_with_parent

MIN_ROUNDS = 3


def kernel_times(request: Request) -> dict[str, Any]:
    """Times of every layer in every file.

    Args:
        request: files of one network; as many rounds are run as `limit_s` allows, up to `rounds`.

    Returns:
        {model: {layer: us}}; a layer that can't be told apart has 0, its time is counted for the one before.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: profiled(request, name, Path(folder)) for name in request.models}
        run_blocks(list(files.values()), MIN_ROUNDS, request.rounds, request.limit_s)
        return {name: _times(file, Path(request.models[name])) for name, file in files.items()}


def _times(file: Profiled, path: Path) -> dict[str, float]:
    layers = list(read_metadata(path)["policy"])
    timed, kernels = file.calls(), file.kernels(layers)
    calls = [by_layer(call, kernels) for call in timed]
    return {layer: middle([call.get(layer, 0.0) for call in calls]) for layer in layers}


def by_layer(call: Mapping[str, float], kernels: Mapping[str, AbstractSet[str]]) -> dict[str, float]:
    """The time of one call, divided among layers.

    Args:
        call: node -> us, in the order they ran.
        kernels: layer -> nodes.
    """
    owner = {node: layer for layer, nodes in kernels.items() for node in nodes}
    latest = next((owner[node] for node in call if node in owner), "")
    shares = dict.fromkeys([*kernels, latest], 0.0)
    for node, us in call.items():
        latest = owner.get(node, latest)
        shares[latest] += us
    return shares


if __name__ == "__main__":
    end_with_parent()
    json.dump(kernel_times(Request(**json.load(sys.stdin))), sys.stdout, allow_nan=False)

"""This machine as a device: ONNX Runtime on its CPU, measured in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mixbit
from mixbit.devices.device import MODEL, Request
from mixbit.devices.fingerprint import fingerprint
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_metadata
from mixbit.errors import MixbitError
from mixbit.policy import parse_policy

_SLACK_S = 120.0


class LocalDevice:
    """The machine that runs the stage."""

    name = "local"

    def fingerprint(self) -> dict[str, str]:
        """Of this machine, see `fingerprint.fingerprint`."""
        return fingerprint()

    def profile(self, request: Request) -> dict[str, Any]:
        """Figures of `measure.measure`; `peak_rss_bytes` by model; `layers`: policy and executed bits, and times.

        Raises:
            MixbitError: ONNX Runtime refuses a file, or the measuring process died.
        """
        figures: dict[str, Any] = _program("mixbit.devices.measure", request.to_json(), request.limit_s + _SLACK_S)
        shape = [request.batch_size, *request.input_shape]
        figures["peak_rss_bytes"] = {
            name: _program(
                "mixbit.devices.memory", {"model": path, "shape": shape, "threads": request.threads}, _SLACK_S
            )["peak_rss_bytes"]
            for name, path in request.models.items()
        }
        kernels = self.executed(request.models[MODEL], request.threads)
        times = _program("mixbit.devices.layer_times", request.to_json(), request.limit_s + _SLACK_S)
        figures["layers"] = {layer: kernel | times["layers"].get(layer, {}) for layer, kernel in kernels.items()}
        return figures | {"others_us": times["others_us"]}

    def compare(self, request: Request) -> dict[str, Any]:
        """Figures of `compare.compare`.

        Raises:
            MixbitError: ONNX Runtime refuses a file, or the measuring process died.
        """
        figures: dict[str, Any] = _program("mixbit.devices.compare", request.to_json(), request.limit_s + _SLACK_S)
        return figures

    def kernel_times(self, request: Request) -> dict[str, dict[str, float]]:
        """Figures of `kernel_times.kernel_times`.

        Raises:
            MixbitError: ONNX Runtime refuses a file, or the measuring process died.
        """
        times: dict[str, dict[str, float]] = _program(
            "mixbit.devices.kernel_times", request.to_json(), request.limit_s + _SLACK_S
        )
        return times

    def executed(self, path: str, threads: int) -> dict[str, dict[str, Any]]:
        """Layer -> policy bits and executed bits of one file, as `kernels.Executed` says them.

        Raises:
            MixbitError: ONNX Runtime refuses the file.
        """
        policy = parse_policy(read_metadata(Path(path))["policy"], path)
        kernels = executed_kernels(Path(path), policy, threads=threads)
        return {layer: kernel.to_json() for layer, kernel in kernels.items()}


def _program(module: str, request: dict[str, Any], timeout_s: float) -> Any:
    # A fresh process: no other thread of this one competes for the interpreter, no torch fills the memory.
    package = str(Path(mixbit.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(request), capture_output=True, text=True, check=False,
        timeout=timeout_s, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode != 0:
        last = re.sub(r"^mixbit\.errors\.\w+: ", "", (done.stderr.strip().splitlines() or ["no message"])[-1])
        raise MixbitError("local", f"measuring failed: {last}", hint="See whether the file runs in ONNX Runtime here")
    return json.loads(done.stdout)

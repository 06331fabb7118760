"""This machine as a device: a runtime on its CPU, measured in processes of their own."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mixbit
from mixbit.devices.backend import DEFAULT, load_backend, require_installed
from mixbit.devices.device import MODEL, Request
from mixbit.devices.fingerprint import fingerprint
from mixbit.devices.known import LOCAL
from mixbit.devices.onnx_file import read_metadata
from mixbit.errors import MixbitError
from mixbit.policy import parse_policy

_SLACK_S = 120.0


class LocalDevice:
    """The machine that runs the stage, with one of its runtimes."""

    def __init__(self, backend: str = DEFAULT, name: str = LOCAL) -> None:
        """Nothing is imported yet.

        Raises:
            MixbitError: the runtime is not installed here.
        """
        require_installed(backend, f"device {name}")
        self.name, self.backend = name, backend

    def fingerprint(self) -> dict[str, str]:
        """Of this machine, see `fingerprint.fingerprint`."""
        return fingerprint(self.backend)

    def profile(self, request: Request) -> dict[str, Any]:
        """Figures of `measure.measure`; `peak_rss_bytes` by model; `layers`: policy and executed bits, and times.

        Raises:
            MixbitError: the runtime refuses a file, or the measuring process died.
        """
        figures: dict[str, Any] = self._measured("mixbit.devices.measure", request)
        settings = {"shape": [request.batch_size, *request.input_shape], "threads": request.threads}
        settings["backend"] = self.backend
        figures["peak_rss_bytes"] = {
            name: self._program("mixbit.devices.memory", settings | {"model": path}, _SLACK_S)["peak_rss_bytes"]
            for name, path in request.models.items()
        }
        kernels = self.executed(request.models[MODEL], request.threads)
        times = self._measured("mixbit.devices.layer_times", request)
        figures["layers"] = {layer: kernel | times["layers"].get(layer, {}) for layer, kernel in kernels.items()}
        return figures | {"others_us": times["others_us"]}

    def compare(self, request: Request) -> dict[str, Any]:
        """Figures of `compare.compare`.

        Raises:
            MixbitError: the runtime refuses a file, or the measuring process died.
        """
        figures: dict[str, Any] = self._measured("mixbit.devices.compare", request)
        return figures

    def kernel_times(self, request: Request) -> dict[str, dict[str, float]]:
        """Figures of `kernel_times.kernel_times`.

        Raises:
            MixbitError: the runtime refuses a file, or the measuring process died.
        """
        times: dict[str, dict[str, float]] = self._measured("mixbit.devices.kernel_times", request)
        return times

    def executed(self, path: str, threads: int) -> dict[str, dict[str, Any]]:
        """Layer -> policy bits and executed bits of one file, as `executed.Executed` says them.

        Raises:
            MixbitError: the runtime refuses the file.
        """
        policy = parse_policy(read_metadata(Path(path))["policy"], path)
        kernels = load_backend(self.backend).executed(Path(path), policy, threads=threads)
        return {layer: kernel.to_json() for layer, kernel in kernels.items()}

    def _measured(self, module: str, request: Request) -> Any:
        return self._program(module, replace(request, backend=self.backend).to_json(), request.limit_s + _SLACK_S)

    def _program(self, module: str, request: dict[str, Any], timeout_s: float) -> Any:
        # A fresh process: no other thread of this one competes for the interpreter, no torch fills the memory.
        package = str(Path(mixbit.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
        done = subprocess.run(
            [sys.executable, "-m", module], input=json.dumps(request), capture_output=True, text=True, check=False,
            timeout=timeout_s, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        if done.returncode != 0:
            last = re.sub(r"^mixbit\.errors\.\w+: ", "", (done.stderr.strip().splitlines() or ["no message"])[-1])
            title = load_backend(self.backend).TITLE
            raise MixbitError(self.name, f"measuring failed: {last}", hint=f"See whether the file runs in {title} here")
        return json.loads(done.stdout)

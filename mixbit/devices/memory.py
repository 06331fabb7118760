"""Peak memory of loading and running one model, as a program: request JSON in, {"peak_rss_bytes": n} out.

In a process of its own: what other models left behind would count otherwise.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mixbit.devices.backend import Backend, load_backend
from mixbit.devices.parent import end_with_parent

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_rss_bytes(backend: Backend, model: str, shape: tuple[int, ...], threads: int, calls: int = 3) -> int:
    """Bytes that load + `calls` runs add at their peak to a process that has imported the runtime.

    Args:
        backend: of the runtime.
        model: ONNX file.
        shape: [N, C, H, W].
        threads: intra-op threads.
        calls: memory settles after a few.
    """
    backend.load()
    _forget_peak_()
    before = _resident("VmRSS")
    opened = backend.open_file(Path(model), threads=threads, shape=shape)
    pictures = np.zeros(shape, np.float32)
    for _ in range(calls):
        opened.run(pictures)
    return max(0, _resident("VmHWM") - before)


def _forget_peak_() -> None:
    # The import's own peak would hide a small model's; 5 resets the high-water mark (proc(5)).
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def _resident(key: str) -> int:
    if not _STATUS.exists():
        import psutil

        memory: Any = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
    return next(int(value.split()[0]) * 1024 for name, _, value in lines if name == key)


if __name__ == "__main__":
    end_with_parent()
    request = json.load(sys.stdin)
    backend, shape = load_backend(request["backend"]), tuple(request["shape"])
    peak = peak_rss_bytes(backend, request["model"], shape, request["threads"])
    json.dump({"peak_rss_bytes": peak}, sys.stdout)

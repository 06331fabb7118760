"""The machine a figure was measured on, in one line; no host name."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor, cores that may be used, system, Python."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = names[0] if names else platform.machine()
    return f"{processor}, {cores} cores, {platform.system()}, Python {platform.python_version()}"

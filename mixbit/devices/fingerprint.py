"""What latency depends on, and nothing that names the machine. Reads a few small files; imports no runtime."""

import hashlib
import os
import platform
from pathlib import Path

from mixbit.devices.backend import DEFAULT, installed, load_backend
from mixbit.policy import canonical_json

# Flags that choose another kernel in a runtime's math library; x86-64 names, then arm64 names.
ISA_FLAGS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16",
             "avx512_vpopcntdq", "amx_int8", "amx_bf16", "amx_tile",
             "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2")  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_UNKNOWN = "unknown"


def fingerprint(backend: str = DEFAULT) -> dict[str, str]:
    """Keys: arch, cpu, isa, cores, governor, os, python, backend, and a version for each package that it measures with.

    Raises:
        MisuseError: no such backend.
    """
    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return {
        "arch": platform.machine(),
        "cpu": cpu.get("model name") or _part(cpu),
        "isa": " ".join(flag for flag in ISA_FLAGS if flag in flags) or _UNKNOWN,
        "cores": str(os.cpu_count()),
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.exists() else _UNKNOWN,
        "os": platform.system(),
        "python": platform.python_version(),
        "backend": backend,
        **{name: installed(name) for name in load_backend(backend).PACKAGES},
    }


def fingerprint_sha256(found: dict[str, str]) -> str:
    """The name of a fingerprint, 64 hex digits."""
    return hashlib.sha256(canonical_json(found)).hexdigest()


def _part(cpu: dict[str, str]) -> str:
    """Linux on ARM names no model, but whose design it is and which."""
    return " ".join(cpu[key] for key in ("CPU implementer", "CPU part") if key in cpu) or _UNKNOWN


def _cpuinfo() -> dict[str, str]:
    if not _CPUINFO.exists():
        return {}
    first = _CPUINFO.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}

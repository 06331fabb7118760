"""Whether the machine kept its pace: clocks, temperature and governor at a moment, and how the reference slowed down.

Evidence beside figures, never part of a key: a fingerprint holds the governor, clocks change all the time.
"""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

LARGEST_SLOWDOWN = 0.05
_ROOT = Path("/")


def clocks(root: Path = _ROOT) -> dict[str, float | str | None]:
    """{"frequency_mhz": mean over cores, "temperature_c": of the warmest zone, "governor"}; None: not shown here.

    Args:
        root: of the file system; Linux shows all three as files.
    """
    cores = "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
    governors = sorted(set(_texts(root.glob(f"{cores}/scaling_governor"))))
    frequencies = [khz / 1e3 for khz in _numbers(_texts(root.glob(f"{cores}/scaling_cur_freq")))]
    zones = [milli / 1e3 for milli in _numbers(_texts(root.glob("sys/class/thermal/thermal_zone*/temp")))]
    frequencies = frequencies or _shown_by_cpuinfo(root)
    return {
        "frequency_mhz": round(statistics.mean(frequencies), 1) if frequencies else None,
        "temperature_c": round(max(zones), 1) if zones else None,
        "governor": ", ".join(governors) or None,
    }


def slowdown(times: Sequence[float]) -> dict[str, float | bool]:
    """How much longer the last third of measurements took than the first: {"slowed": 0.02 for 2 %, "alarm"}.

    Args:
        times: of one model, in the order they were taken.
    """
    third = max(1, len(times) // 3)
    slowed = statistics.median(times[-third:]) / statistics.median(times[:third]) - 1
    return {"slowed": slowed, "alarm": slowed > LARGEST_SLOWDOWN}


def _shown_by_cpuinfo(root: Path) -> list[float]:
    lines = [line.partition(":") for text in _texts([root / "proc/cpuinfo"]) for line in text.splitlines()]
    return _numbers(value for name, _, value in lines if name.strip() == "cpu MHz")


def _texts(paths: Iterable[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            found.append(path.read_text().strip())
        except OSError:  # a zone may be listed and not answer
            continue
    return found


def _numbers(texts: Iterable[str]) -> list[float]:
    found = []
    for text in texts:
        try:
            found.append(float(text))
        except ValueError:
            continue
    return found

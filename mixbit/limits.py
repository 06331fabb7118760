"""Limits as a user writes them, by the cost that they limit; the shape only, no meaning."""

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from mixbit import latency
from mixbit.faults import did_you_mean
from mixbit.load import method_names

COSTS = ("bitops", "size_bits", "file_bytes")
MODELS = "mixbit.simulated"
# No sum over layers; see mixbit/activation_memory.py.
PEAK = "peak_activation_bytes"
COUNTED = (*COSTS, PEAK)
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(BYTES)})")


def size_bytes(text: str) -> Fraction | None:
    """Bytes of a text such as `200 kB` or `1.5 MiB`; None of another."""
    match = _SIZE.fullmatch(text)
    return Fraction(match[1]) * BYTES[match[2]] if match else None


def _limit(value: Any, also: str = "") -> int | float | str:
    expected = f"expected a positive number, {also}w2a2 to w8a8 (as uniform) or such as 12.2x (smaller than float32)"
    if isinstance(value, str):
        smaller = re.fullmatch(r"(\d+(?:\.\d+)?)x", value)
        if smaller and float(smaller[1]) < 1:
            raise ValueError(f"{expected}. Less than 1x is larger than float32; for a quarter of it write 4x")
        if smaller or re.fullmatch(r"w[2-8]a[2-8]", value):
            return value
        raise ValueError(expected)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(expected)
    return value


def _cost(name: str) -> str:
    simulated = [latency.simulated_name(model) for model in method_names(MODELS)]
    if latency.simulated_of(name) is not None and name not in simulated:
        raise ValueError(f"expected {' or '.join(simulated)}. {did_you_mean(name, simulated, 'Models')}")
    if name not in (*COUNTED, *simulated) and latency.device_of(name) is None:
        hint = did_you_mean(name, [*COUNTED, "latency[local]", *simulated], "Costs")
        raise ValueError(f"expected bitops, size_bits, file_bytes or peak_activation_bytes, or latency[DEVICE]. {hint}")
    return name


def _with_their_costs(limits: Any) -> Any:
    """Each limit beside the cost that it limits: what is a limit depends on it."""
    return {name: (name, value) for name, value in limits.items()} if isinstance(limits, dict) else limits


def _limit_of(limit: tuple[str, Any]) -> int | float | str:
    name, value = limit
    if name == PEAK:
        return value if isinstance(value, str) and size_bytes(value) else _limit(value, "a size such as 200 kB, ")
    if latency.device_of(name) is None and latency.simulated_of(name) is None:
        return _limit(value)
    if not latency.is_limit(value):
        raise ValueError(f"expected {latency.EXPECTED}")
    return str(value)


Cost = Annotated[str, AfterValidator(_cost)]
Limit = Annotated[int | float | str, BeforeValidator(_limit_of)]
LimitsByCost = Annotated[dict[Cost, Limit], BeforeValidator(_with_their_costs)]

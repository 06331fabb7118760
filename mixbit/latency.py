"""Latency of a policy on one device, from a table: layers by executed precision, changes of precision, a calibration.

What is executed decides, not what is asked: on a CPU every entry of 2 to 8 bits runs the int8 kernel of W8A8, and an
entry with a float side the float kernel. A table is linear:

    us = offset + sum over layers of us[layer][executed] + sum over neighbours of unlike precision of their boundary

Layers come from profiles of the two uniform files. Scale, offset and boundaries (so much each, so much an element that
goes from float to int8, so much one that comes back) are fitted to mixed policies that were measured whole, and judged
on others (`latency_fit.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixbit.policy import Entry, Policy, is_float

FLOAT, INT8 = "float", "int8"
UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
COST = re.compile(r"latency\[([A-Za-z0-9][A-Za-z0-9_.-]*)\]")
SIMULATED = "simulated:"
_SIMULATED_COST = re.compile(rf"latency\[{SIMULATED}([^\[\]]*)\]")
_ABSOLUTE = re.compile(r"(\d+(?:\.\d+)?) ?(us|ms|s)")
_RELATIVE = re.compile(r"(\d+(?:\.\d+)?)x (float|w8a8)")
EXPECTED = "a time such as 8 ms (us, ms or s), or such as 0.8x float or 1.1x w8a8 (times what that takes there)"


def cost_name(device: str) -> str:
    """What the cost is called in budgets."""
    return f"latency[{device}]"


def device_of(cost: str) -> str | None:
    """The device that a cost's name speaks of; None of another cost."""
    match = COST.fullmatch(cost)
    return match[1] if match else None


def simulated_name(model: str) -> str:
    """What the cost of a simulated model is called in budgets."""
    return cost_name(f"{SIMULATED}{model}")


def simulated_of(cost: str) -> str | None:
    """The simulated model that a cost's name speaks of; None of another cost."""
    match = _SIMULATED_COST.fullmatch(cost)
    return match[1] if match else None


def is_limit(value: object) -> bool:
    """Whether it says a limit of latency: `8 ms`, `0.8x float`."""
    match = isinstance(value, str) and (_ABSOLUTE.fullmatch(value) or _RELATIVE.fullmatch(value))
    return bool(match) and float(match[1]) > 0  # type: ignore[index]


def limit_us(value: str, reference_us: Mapping[str, float]) -> float:
    """A limit in us.

    Args:
        value: as `is_limit` accepts it.
        reference_us: what the references `float` and `w8a8` take on the device.
    """
    if relative := _RELATIVE.fullmatch(value):
        return float(relative[1]) * reference_us[relative[2]]
    absolute = _ABSOLUTE.fullmatch(value)
    assert absolute
    return float(absolute[1]) * UNITS_US[absolute[2]]


def executed(entry: Entry) -> str:
    """The precision that a CPU computes an entry with."""
    return FLOAT if is_float(entry) else INT8


def change(policy: Policy, first: str, second: str) -> bool:
    """Whether precision changes between two layers: exactly one is float."""
    return is_float(policy[first]) != is_float(policy[second])


@dataclass(frozen=True)
class Table:
    """A calibrated table; times in us.

    Attributes:
        layers: layer -> {float, int8}.
        boundaries: (layer, reader) -> time of a change of precision between them: (float to int8, int8 to float).
        offset_us: what every policy takes.
        reference_us: `float` and `w8a8`, measured whole.
        error: mean relative error on policies that had no part in the calibration.
    """

    layers: Mapping[str, Mapping[str, float]]
    boundaries: Mapping[tuple[str, str], tuple[float, float]]
    offset_us: float
    reference_us: Mapping[str, float]
    error: float

    def predict_us(self, policy: Policy) -> float:
        """The time of a whole policy."""
        layers = sum(self.layers[name][executed(entry)] for name, entry in policy.items())
        changes = [us[is_float(policy[b])] for (a, b), us in self.boundaries.items() if change(policy, a, b)]
        return self.offset_us + layers + sum(changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `from_json`."""
        boundaries = [
            {"from": a, "to": b, "float_int8_us": quantized, "int8_float_us": dequantized}
            for (a, b), (quantized, dequantized) in self.boundaries.items()
        ]
        layers = {name: dict(row) for name, row in self.layers.items()}
        return {
            "layers": layers,
            "boundaries": boundaries,
            "offset_us": self.offset_us,
            "reference_us": dict(self.reference_us),
            "error": self.error,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Table":
        """The table in latency_table.json, which says more."""
        boundaries = {
            (row["from"], row["to"]): (row["float_int8_us"], row["int8_float_us"]) for row in data["boundaries"]
        }
        return Table(data["layers"], boundaries, data["offset_us"], data["reference_us"], data["error"])

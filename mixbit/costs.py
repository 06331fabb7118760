"""What a policy costs, in integers: bitops, size_bits, file_bytes per layer, peak activation memory; budgets in them.

Everywhere `layers` is the content of layers.json, and a `float` num_bits counts as 32. Layers that forward never ran
cost nothing.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from mixbit.activation_memory import peak_activation_bytes
from mixbit.entries import Layer, Layers, Rules, run_layers, run_names, uniform_policy
from mixbit.errors import MisuseError
from mixbit.faults import did_you_mean
from mixbit.limits import COSTS, COUNTED, PEAK, size_bytes
from mixbit.policy import FLOAT_BITS, Entry, NumBits, Policy, as_number

# The model of a packed file, in bytes, fitted to exported residual and mobile networks and meant to be rather too high.
# Once: functions and the file's metadata; it counts with the first layer. Per output channel: 16 bits of scale and of
# bias. Per layer: its nodes, its name wherever it is written, and what spreads activation codes below 8 bits over a
# byte.
FILE_BYTES = 2380
CHANNEL_BYTES = 4
LAYER_BYTES = 187
NAME_TIMES = 2
STRETCH_BYTES = 55
FLOAT_CHANNEL_BYTES = 4
FLOAT_LAYER_BYTES = 200
# Containers of 2, 4 and 8 bits have element types of their own; below 8 the file has more nodes. Other widths are bit
# planes of their true size, unless the nodes that unpack them weigh more than the next container up.
CONTAINER_BITS = (2, 4, 8)
CAST_BYTES = 20
PLANES_BYTES = 100


def layer_costs(layer: Layer, entry: Entry, *, first: bool = False) -> dict[str, int]:
    """The costs of one layer under one entry.

    bitops = macs * weight_bits * activation_bits; size_bits = weights * weight_bits, policy bits and nothing else;
    file_bytes models what the layer takes in a `packed` file: container, scales, biases, nodes.

    Args:
        layer: of layers.json.
        entry: (weight num_bits, activation num_bits).
        first: whether it is the first that runs, with which the file itself counts.
    """
    weight_bits, activation_bits = map(as_number, entry)
    return {
        "bitops": layer["macs"] * weight_bits * activation_bits,
        "size_bits": layer["weights"] * weight_bits,
        "file_bytes": _file_bytes(layer, *entry) + first * FILE_BYTES,
    }


def policy_costs(policy: Policy, layers: Layers) -> dict[str, int]:
    """The costs of a policy, fixed layers included; the peak of activations where layers.json tells of tensors."""
    rows = [
        layer_costs(layer, policy[layer["name"]], first=place == 0) for place, layer in enumerate(run_layers(layers))
    ]
    totals = {name: sum(row[name] for row in rows) for name in COSTS}
    return totals | ({PEAK: peak_activation_bytes(policy, layers)} if "activations" in layers else {})


def resolve_limits(
    requested: Mapping[str, int | float | str], layers: Layers, profile: str, rules: Rules
) -> dict[str, int]:
    """A budget as whole numbers, each the most that the policy, fixed layers included, may cost.

    Args:
        requested: cost name -> a positive number; `wNaM`: as much as `uniform_policy` of (N, M), that is uniform over
            the searched layers with fixed and excluded layers as they are; `Fx` such as `12.2x`: what the float model
            costs (32 bits for every weight and activation of every layer, fixed ones included) divided by F. Rounded
            down. `peak_activation_bytes` may be a size such as `200 kB` (kB, MB, KiB, MiB, …).
        layers: content of layers.json.
        profile: fixed-layer profile.
        rules: per-layer rules, by pattern.

    Raises:
        MisuseError: an unknown cost, NaN, infinity, zero, less, or text of another form; and as
            `mixbit.entries.candidates`.
    """
    everything_float = policy_costs(dict.fromkeys(run_names(layers), ("float", "float")), layers)
    limits = {}
    for name, value in requested.items():
        if name not in COUNTED:
            hint = did_you_mean(name, COUNTED, "Costs")
            raise MisuseError("budgets", "unknown cost", expected=" or ".join(COUNTED), got=name, hint=hint)
        text = value if isinstance(value, str) else ""
        uniform, smaller = re.fullmatch(r"w([2-8])a([2-8])", text), re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
        if uniform:
            policy = uniform_policy(layers, (int(uniform[1]), int(uniform[2])), profile, rules)
            limits[name] = policy_costs(policy, layers)[name]
        elif smaller and Fraction(smaller[1]) > 0:
            limits[name] = math.floor(everything_float[name] / Fraction(smaller[1]))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            limits[name] = math.floor(value)
        elif name == PEAK and (size := size_bytes(text)):
            limits[name] = math.floor(size)
        else:
            raise MisuseError(f"budgets: {name}", "", expected="a positive number, wNaM or such as 12.2x", got=value)
    return limits


def _file_bytes(layer: Layer, weight_bits: NumBits, activation_bits: NumBits) -> int:
    weights, channels = int(layer["weights"]), int(layer["out_channels"])
    if weight_bits == "float":
        return weights * FLOAT_BITS // 8 + FLOAT_CHANNEL_BYTES * channels + FLOAT_LAYER_BYTES
    nodes = LAYER_BYTES + NAME_TIMES * len(layer["name"].encode())
    nodes += STRETCH_BYTES if as_number(activation_bits) < CONTAINER_BITS[-1] else 0
    return _container_bytes(weights, weight_bits) + CHANNEL_BYTES * channels + nodes


def _container_bytes(weights: int, num_bits: int) -> int:
    wider = next(bits for bits in CONTAINER_BITS if bits >= num_bits)
    whole = -(-weights * wider // 8) + (CAST_BYTES if wider < CONTAINER_BITS[-1] else 0)
    return whole if wider == num_bits else min(whole, num_bits * -(-weights // 8) + PLANES_BYTES)

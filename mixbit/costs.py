"""What a policy costs, in integers: bitops, size_bits and file_bytes per layer; candidates and budgets built on them.

Everywhere `layers` is the content of layers.json, and a `float` num_bits counts as 32. Layers that forward never ran
cost nothing and take no part in a policy.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from mixbit.errors import MisuseError
from mixbit.experiment import COSTS, LayerRule
from mixbit.faults import did_you_mean
from mixbit.policy import Entry, NumBits, Policy

Layers = Mapping[str, Any]
Layer = Mapping[str, Any]
Rules = Mapping[str, LayerRule]

FLOAT_BITS = 32
# First and last layers take no part in the search but cost what they cost. LIMPQ: https://arxiv.org/abs/2203.08368
PROFILES: Mapping[str, Entry | None] = {"limpq": (8, 8), "none": None}

# The model of a packed file, in bytes, fitted to exported residual and mobile networks and meant to be rather too high.
# Per output channel: scale and bias. Per layer: its nodes and its share of the file's metadata,
# its name wherever it is written, and what spreads activation codes below 8 bits over a byte.
CHANNEL_BYTES = 8
LAYER_BYTES = 880
NAME_TIMES = 11
STRETCH_BYTES = 220
FLOAT_CHANNEL_BYTES = 4
FLOAT_LAYER_BYTES = 460
# Containers of 2, 4 and 8 bits have element types of their own; below 8 the file has more nodes. Other widths are bit
# planes of their true size, unless the nodes that unpack them weigh more than the next container up.
CONTAINER_BITS = (2, 4, 8)
CAST_BYTES = 125
PLANES_BYTES = 320


def run_layers(layers: Layers) -> list[Layer]:
    """Layers that forward ran, in execution order."""
    return [layer for layer in layers["layers"] if not layer["never_run"]]


def layer_costs(layer: Layer, entry: Entry) -> dict[str, int]:
    """The costs of one layer under one entry.

    bitops = macs * weight_bits * activation_bits; size_bits = weights * weight_bits, policy bits and nothing else;
    file_bytes models what the layer takes in a `packed` file: container, scales, biases, nodes.
    """
    weight_bits, activation_bits = map(_as_number, entry)
    return {
        "bitops": layer["macs"] * weight_bits * activation_bits,
        "size_bits": layer["weights"] * weight_bits,
        "file_bytes": _file_bytes(layer, *entry),
    }


def policy_costs(policy: Policy, layers: Layers) -> dict[str, int]:
    """The costs of a policy: sums over its layers, fixed ones included."""
    rows = [layer_costs(layer, policy[layer["name"]]) for layer in run_layers(layers)]
    return {name: sum(row[name] for row in rows) for name in COSTS}


def uniform_policy(layers: Layers, entry: Entry, profile: str, rules: Rules) -> dict[str, Entry]:
    """`entry` for every searched layer; fixed layers as the profile says, excluded ones float.

    Layers that read a tensor together with a fixed layer keep its activation bits. min_bits and max_bits don't count:
    it is the policy that `wNaM` names, not one that the rules allow.

    Raises:
        MisuseError: as `candidates`.
    """
    fixed = fixed_entries(layers, profile, rules)
    forced = _forced_activations(layers, fixed)
    return {name: fixed.get(name, (entry[0], forced.get(name, entry[1]))) for name in _names(layers)}


def candidates(layers: Layers, num_bits: Sequence[NumBits], profile: str, rules: Rules) -> dict[str, tuple[Entry, ...]]:
    """Layer -> entries it may take, low to high bits: all pairs of integers; (float, float) if `float` is a candidate.

    Fixed layers have one entry, excluded ones (float, float). A layer that reads a tensor together with a fixed layer
    has that layer's activation bits, also when they are no candidates.

    Raises:
        MisuseError: an unknown profile, a pattern that matches no layer, rules that leave nothing or contradict the
            profile, an excluded layer whose tensor is read by others that are not.
    """
    fixed = fixed_entries(layers, profile, rules)
    forced = _forced_activations(layers, fixed)
    found: dict[str, tuple[Entry, ...]] = {}
    for name in _names(layers):
        allowed = _allowed(name, num_bits, rules)
        activations: list[NumBits] = [forced[name]] if name in forced else allowed
        pairs = [(w, a) for w in allowed for a in activations if (w == "float") == (a == "float")]
        found[name] = (fixed[name],) if name in fixed else tuple(pairs)
        if not found[name]:
            where = f"layers: {name}"
            raise MisuseError(where, "its rules leave no candidate num_bits", expected=f"some of {_listed(num_bits)}")
    return found


def fixed_entries(layers: Layers, profile: str, rules: Rules) -> dict[str, Entry]:
    """Layers that take no part in the search: first and last as the profile says, excluded ones float.

    Raises:
        MisuseError: as `candidates`.
    """
    if profile not in PROFILES:
        raise MisuseError("fixed_layers", "unknown profile", expected=" or ".join(PROFILES), got=profile)
    names = _names(layers)
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MisuseError(f"layers: {pattern}", "matches no layer", hint=did_you_mean(pattern, names, "Layers"))
    entry = PROFILES[profile]
    fixed: dict[str, Entry] = {} if entry is None else dict.fromkeys((layers["first"], layers["last"]), entry)
    for name, (bits, _) in fixed.items():
        if not _allowed(name, [bits], rules) and not _excluded(name, rules):
            hint = "Leave it out of the rule, or set fixed_layers: none"
            raise MisuseError(
                f"layers: {name}", f"fixed to {bits} bits by the profile {profile}, which its rule forbids", hint=hint
            )
    return fixed | {name: ("float", "float") for name in names if _excluded(name, rules)}


def resolve_limits(
    requested: Mapping[str, int | float | str], layers: Layers, profile: str, rules: Rules
) -> dict[str, int]:
    """A budget as whole numbers, each the most that the policy, fixed layers included, may cost.

    Args:
        requested: cost name -> a positive number; `wNaM`: as much as `uniform_policy` of (N, M), that is uniform over
            the searched layers with fixed and excluded layers as they are; `Fx` such as `12.2x`: what the float model
            costs (32 bits for every weight and activation of every layer, fixed ones included) divided by F. Rounded
            down.
        layers: content of layers.json.
        profile: fixed-layer profile.
        rules: per-layer rules, by pattern.

    Raises:
        MisuseError: an unknown cost, NaN, infinity, zero, less, or text of another form; and as `candidates`.
    """
    everything_float = policy_costs(dict.fromkeys(_names(layers), ("float", "float")), layers)
    limits = {}
    for name, value in requested.items():
        if name not in COSTS:
            hint = did_you_mean(name, COSTS, "Costs")
            raise MisuseError("budgets", "unknown cost", expected=" or ".join(COSTS), got=name, hint=hint)
        text = value if isinstance(value, str) else ""
        uniform, smaller = re.fullmatch(r"w([2-8])a([2-8])", text), re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
        if uniform:
            policy = uniform_policy(layers, (int(uniform[1]), int(uniform[2])), profile, rules)
            limits[name] = policy_costs(policy, layers)[name]
        elif smaller and Fraction(smaller[1]) > 0:
            limits[name] = math.floor(everything_float[name] / Fraction(smaller[1]))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            limits[name] = math.floor(value)
        else:
            raise MisuseError(f"budgets: {name}", "", expected="a positive number, wNaM or such as 12.2x", got=value)
    return limits


def check_groups(groups: Sequence[Sequence[str]], layers: Layers) -> None:
    """Whether every member of a group is a layer.

    Raises:
        MisuseError: an unknown member.
    """
    names = _names(layers)
    for place, group in enumerate(groups):
        for name in group:
            if name not in names:
                raise MisuseError(
                    f"groups[{place}]", "unknown layer", got=name, hint=did_you_mean(name, names, "Layers")
                )


def _names(layers: Layers) -> list[str]:
    return [layer["name"] for layer in run_layers(layers)]


def _as_number(bits: NumBits) -> int:
    return FLOAT_BITS if bits == "float" else bits


def _file_bytes(layer: Layer, weight_bits: NumBits, activation_bits: NumBits) -> int:
    weights, channels = int(layer["weights"]), int(layer["out_channels"])
    if weight_bits == "float":
        return weights * FLOAT_BITS // 8 + FLOAT_CHANNEL_BYTES * channels + FLOAT_LAYER_BYTES
    nodes = LAYER_BYTES + NAME_TIMES * len(layer["name"].encode())
    nodes += STRETCH_BYTES if _as_number(activation_bits) < CONTAINER_BITS[-1] else 0
    return _container_bytes(weights, weight_bits) + CHANNEL_BYTES * channels + nodes


def _container_bytes(weights: int, num_bits: int) -> int:
    wider = next(bits for bits in CONTAINER_BITS if bits >= num_bits)
    whole = -(-weights * wider // 8) + (CAST_BYTES if wider < CONTAINER_BITS[-1] else 0)
    return whole if wider == num_bits else min(whole, num_bits * -(-weights // 8) + PLANES_BYTES)


def _excluded(name: str, rules: Rules) -> bool:
    return any(rule.exclude and fnmatchcase(name, pattern) for pattern, rule in rules.items())


def _allowed(name: str, num_bits: Sequence[NumBits], rules: Rules) -> list[NumBits]:
    """Candidates that every rule matching a layer allows, low to high; `float` is more than any max_bits."""
    matching = [rule for pattern, rule in rules.items() if fnmatchcase(name, pattern)]
    low = max((rule.min_bits or 0 for rule in matching), default=0)
    high = min((rule.max_bits or FLOAT_BITS for rule in matching), default=FLOAT_BITS)
    return sorted((bits for bits in num_bits if low <= _as_number(bits) <= high), key=_as_number)


def _forced_activations(layers: Layers, fixed: Mapping[str, Entry]) -> dict[str, NumBits]:
    """Searched layers whose activation bits are those of a fixed layer, because they read one tensor."""
    forced: dict[str, NumBits] = {}
    for group in layers["shared_activations"]:
        bits = {fixed[name][1] for name in group if name in fixed}
        free = [name for name in group if name not in fixed]
        listed = ", ".join(group)
        if len(bits) > 1 or (free and "float" in bits):
            hint = "Exclude all of them or none"
            raise MisuseError("layers", f"{listed} read one tensor, and only some of them are float", hint=hint)
        forced |= {name: bit for name in free for bit in bits}
    return forced


def _listed(num_bits: Sequence[NumBits]) -> str:
    return ", ".join(map(str, num_bits))

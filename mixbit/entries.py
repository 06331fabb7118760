"""Which entries each layer may take: fixed layers, excluded ones, and what the rules leave of the candidates.

Everywhere `layers` is the content of layers.json. Layers that forward never ran take no part in a policy.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mixbit.errors import MisuseError
from mixbit.experiment import LayerRule
from mixbit.faults import did_you_mean
from mixbit.policy import FLOAT_BITS, Entry, NumBits, as_number

Layers = Mapping[str, Any]
Layer = Mapping[str, Any]
Rules = Mapping[str, LayerRule]

# First and last layers take no part in the search but cost what they cost. LIMPQ: https://arxiv.org/abs/2203.08368
PROFILES: Mapping[str, Entry | None] = {"limpq": (8, 8), "none": None}


def run_layers(layers: Layers) -> list[Layer]:
    """Layers that forward ran, in execution order."""
    return [layer for layer in layers["layers"] if not layer["never_run"]]


def run_names(layers: Layers) -> list[str]:
    """Their names."""
    return [layer["name"] for layer in run_layers(layers)]


def excluding(patterns: Iterable[str]) -> dict[str, LayerRule]:
    """Rules that leave the layers of these patterns float."""
    return {pattern: LayerRule(exclude=True) for pattern in patterns}


def fixed_entries(layers: Layers, profile: str, rules: Rules) -> dict[str, Entry]:
    """Layers that take no part in the search: first and last as the profile says, excluded ones float.

    Raises:
        MisuseError: as `candidates`.
    """
    if profile not in PROFILES:
        raise MisuseError("fixed_layers", "unknown profile", expected=" or ".join(PROFILES), got=profile)
    names = run_names(layers)
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


def searched_layers(layers: Layers, profile: str, rules: Rules) -> list[str]:
    """Names of the layers whose bits are searched, in execution order.

    Raises:
        MisuseError: none is left; and as `candidates`.
    """
    fixed = fixed_entries(layers, profile, rules)
    searched = [name for name in run_names(layers) if name not in fixed]
    if not searched:
        hint = "Exclude fewer layers, or set fixed_layers: none"
        raise MisuseError("layers", "no layer is left to search", hint=hint)
    return searched


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
    for name in run_names(layers):
        allowed = _allowed(name, num_bits, rules)
        activations: list[NumBits] = [forced[name]] if name in forced else allowed
        pairs = [(w, a) for w in allowed for a in activations if (w == "float") == (a == "float")]
        found[name] = (fixed[name],) if name in fixed else tuple(pairs)
        if not found[name]:
            where = f"layers: {name}"
            raise MisuseError(where, "its rules leave no candidate num_bits", expected=f"some of {_listed(num_bits)}")
    return found


def uniform_policy(layers: Layers, entry: Entry, profile: str, rules: Rules) -> dict[str, Entry]:
    """`entry` for every searched layer; fixed layers as the profile says, excluded ones float.

    Layers that read a tensor together with a fixed layer keep its activation bits. min_bits and max_bits don't count:
    it is the policy that `wNaM` names, not one that the rules allow.

    Raises:
        MisuseError: as `candidates`.
    """
    fixed = fixed_entries(layers, profile, rules)
    forced = _forced_activations(layers, fixed)
    return {name: fixed.get(name, (entry[0], forced.get(name, entry[1]))) for name in run_names(layers)}


def check_groups(groups: Sequence[Sequence[str]], layers: Layers) -> None:
    """Whether every member of a group is a layer.

    Raises:
        MisuseError: an unknown member.
    """
    names = run_names(layers)
    for place, group in enumerate(groups):
        for name in group:
            if name not in names:
                raise MisuseError(
                    f"groups[{place}]", "unknown layer", got=name, hint=did_you_mean(name, names, "Layers")
                )


def _excluded(name: str, rules: Rules) -> bool:
    return any(rule.exclude and fnmatchcase(name, pattern) for pattern, rule in rules.items())


def _allowed(name: str, num_bits: Sequence[NumBits], rules: Rules) -> list[NumBits]:
    """Candidates that every rule matching a layer allows, low to high; `float` is more than any max_bits."""
    matching = [rule for pattern, rule in rules.items() if fnmatchcase(name, pattern)]
    low = max((rule.min_bits or 0 for rule in matching), default=0)
    high = min((rule.max_bits or FLOAT_BITS for rule in matching), default=FLOAT_BITS)
    return sorted((bits for bits in num_bits if low <= as_number(bits) <= high), key=as_number)


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

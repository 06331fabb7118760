"""The policy: layer -> (weight num_bits, activation num_bits), and nothing else. Its sha256 is its name."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from mixbit.errors import ConfigError, MisuseError, MixbitError

NumBits = int | Literal["float"]
Entry = tuple[NumBits, NumBits]
Policy = Mapping[str, Entry]

MIN_BITS, MAX_BITS = 2, 8
FLOAT_ENTRY: Entry = ("float", "float")
INT8_ENTRY: Entry = (8, 8)
FLOAT_BITS = 32
_SHORT = re.compile(r"w(\d|float)a(\d|float)")


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: NaN or infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def is_num_bits(value: object) -> bool:
    """Whether value is a legal num_bits: an integer in [2, 8] or `float`."""
    return value == "float" or (type(value) is int and MIN_BITS <= value <= MAX_BITS)


def is_float(entry: Entry) -> bool:
    """Whether a layer with this entry is computed by float kernels: it is unless both sides are integers."""
    return "float" in entry


def as_number(bits: NumBits) -> int:
    """num_bits to count with: `float` is 32."""
    return FLOAT_BITS if bits == "float" else bits


def dump_policy(policy: Policy) -> bytes:
    """A policy as the canonical bytes whose sha256 names it."""
    return canonical_json({name: {"weight_bits": w, "activation_bits": a} for name, (w, a) in policy.items()})


def short_policy(policy: Policy) -> dict[str, str]:
    """A policy as files say it, layer -> `w4a8`, `wfloatafloat`, ...; read by `long_policy`."""
    return {name: f"w{w}a{a}" for name, (w, a) in policy.items()}


def long_policy(short: Mapping[str, Any]) -> dict[str, Any]:
    """A file's policy as `parse_policy` reads it; what is no entry of a short policy stays, for that to judge."""
    matches = {name: _SHORT.fullmatch(str(entry)) for name, entry in short.items()}
    return {
        name: {"weight_bits": _bits(match[1]), "activation_bits": _bits(match[2])} if match else short[name]
        for name, match in matches.items()
    }


def _bits(text: str) -> NumBits:
    return "float" if text == "float" else int(text)


def policy_sha256(policy: Policy) -> str:
    """The name of a policy, 64 hex digits."""
    return hashlib.sha256(dump_policy(policy)).hexdigest()


def parse_policy(data: Any, where: str) -> dict[str, Entry]:
    """A policy from parsed JSON or YAML, layer names sorted.

    Raises:
        MisuseError: not `{layer: {weight_bits, activation_bits}}`.
        ConfigError: every layer with a num_bits outside [2, 8] and `float`.
    """
    expected = "{layer: {weight_bits: 2..8 or float, activation_bits: 2..8 or float}}"
    if not isinstance(data, dict) or not data:
        raise MisuseError(where, "not a policy", expected=expected, got=type(data).__name__)
    rows = sorted(((str(name), entry) for name, entry in data.items()), key=lambda row: row[0])
    faults = [fault for name, entry in rows for fault in _entry_faults(entry, f"{where}: {name}")]
    if faults:
        raise ConfigError(faults)
    return {name: (entry["weight_bits"], entry["activation_bits"]) for name, entry in rows}


def _entry_faults(entry: Any, where: str) -> list[MixbitError]:
    if not isinstance(entry, dict) or set(entry) != {"weight_bits", "activation_bits"}:
        return [MisuseError(where, "not a policy entry", expected="{weight_bits: …, activation_bits: …}", got=entry)]
    return [
        MisuseError(f"{where}: {kind}", "", expected="2..8 or float", got=repr(bits))
        for kind, bits in entry.items()
        if not is_num_bits(bits)
    ]


def load_policy(content: bytes, where: str) -> dict[str, Entry]:
    """A policy from the bytes of policy.json.

    Raises:
        MisuseError: not JSON, or not a policy.
    """
    try:
        data = json.loads(content)
    except ValueError as error:
        raise MisuseError(where, f"not JSON: {error}", hint="Write a policy as policy.json does") from None
    return parse_policy(data, where)


def mean_bits(policy: Policy, weights: Mapping[str, int]) -> tuple[float, float]:
    """Mean weight bits (weighted by parameters) and mean activation bits (over layers); `float` counts as 32."""
    weight_bits = sum(weights[name] * as_number(w) for name, (w, _) in policy.items())
    activation_bits = sum(as_number(a) for _, a in policy.values())
    return weight_bits / sum(weights[name] for name in policy), activation_bits / len(policy)

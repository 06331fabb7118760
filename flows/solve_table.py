"""Reads a foreign table for `mixbit solve`: every fault at once, each with its place."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.faults import did_you_mean
from mixbit.policy import Entry, Policy
from policies.table import Candidate, Ties

GROUPS = {"groups": "both", "weight_groups": "weight", "activation_groups": "activation"}
SHOWN_CHARACTERS = 60
# Sums over any table stay finite as floats.
MOST = 1e300


@dataclass(frozen=True)
class Read:
    """A problem as `policies.ilp.allocate` takes it."""

    table: dict[str, dict[Entry, Candidate]]
    budgets: dict[str, int | float]
    ties: Ties


def read_problem(path: Path) -> Read:
    """The table in a file.

    Raises:
        ConfigError: every fault, a line each: `problem.json: layers[3].choices[0].harm: expected …, got …`.
    """
    checked = _Checked(path.name)
    data = loaded(path)
    checked.keys(data, "", {"layers", "budgets"}, set(GROUPS))
    given = data if isinstance(data, dict) else {}
    costs = _cost_names(given.get("layers"))
    budgets = _budgets(checked, given["budgets"], costs, given.get("layers")) if "budgets" in given else {}
    table = _table(checked, given["layers"], sorted(costs)) if "layers" in given else {}
    ties = _ties(checked, given, table) if "layers" in given else Ties()
    if checked.faults:
        raise ConfigError(checked.faults)
    return Read(table, budgets, ties)


def policy_object(policy: Policy) -> dict[str, Any]:
    """A policy as JSON has it, the bits named as in a table's choices."""
    return {name: {"weight_bits": w, "activation_bits": a} for name, (w, a) in policy.items()}


def loaded(path: Path) -> Any:
    """The content of a JSON file; a key twice in one object is a fault.

    Raises:
        ConfigError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise ConfigError([MisuseError(str(path), f"cannot be read: {error.strerror}")]) from None
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else f"not JSON: {error}"
        raise ConfigError([MisuseError(path.name, what)]) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"key {next(name for name in names if names.count(name) > 1)!r} is written twice in one object"
        )
    return found


@dataclass
class _Checked:
    """Collects what is wrong with a file."""

    file: str
    faults: list[MixbitError] = field(default_factory=list)

    def fault(
        self, place: str, what: str = "", *, expected: object = None, got: object = None, hint: str | None = None
    ) -> None:
        where = f"{self.file}: {place}" if place else self.file
        self.faults.append(MisuseError(where, what, expected=expected, got=got, hint=hint or None))

    def keys(self, data: Any, place: str, needed: set[str], optional: set[str] = frozenset()) -> bool:  # type: ignore[assignment]
        """Whether data is an object with these keys; unknown ones are a fault that stops nothing."""
        if not isinstance(data, dict):
            self.fault(place, expected=f"an object with {', '.join(sorted(needed))}", got=_written(data))
            return False
        known = sorted(needed | optional)
        for key in data:
            if key not in known:
                self.fault(f"{place}.{key}".lstrip("."), "unknown key", hint=did_you_mean(key, known))
        missing = sorted(needed - set(data))
        for key in missing:
            self.fault(f"{place}.{key}".lstrip("."), "missing")
        return not missing

    def list_of(self, data: Any, place: str, what: str) -> Sequence[Any]:
        """The list, or nothing and a fault."""
        if isinstance(data, list):
            return data
        self.fault(place, expected=f"a list of {what}", got=_written(data))
        return ()

    def number(self, value: Any, place: str) -> int | float | None:
        """The number if it is one, finite and not negative; else a fault."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST:
            self.fault(place, expected="a number from 0 to 1e300", got=_written(value))
            return None
        return value

    def bits(self, value: Any, place: str) -> int | Any:
        """An integer of at least 1 or `float`; else a fault."""
        if value != "float" and (type(value) is not int or value < 1):
            self.fault(place, expected="a whole number >= 1, or float", got=_written(value))
            return None
        return value


def _written(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _cost_names(layers: Any) -> set[str]:
    """Every cost that some choice names."""
    rows = [row for row in layers if isinstance(row, dict)] if isinstance(layers, list) else []
    choices = [c for row in rows if isinstance(row.get("choices"), list) for c in row["choices"] if isinstance(c, dict)]
    return {name for choice in choices if isinstance(choice.get("costs"), dict) for name in choice["costs"]}


def _budgets(checked: _Checked, data: Any, costs: set[str], layers: Any) -> dict[str, int | float]:
    if not isinstance(data, dict):
        checked.fault("budgets", expected="an object: cost name -> most of it", got=_written(data))
        return {}
    budgets = {}
    for name, value in data.items():
        number = checked.number(value, f"budgets.{name}")
        if name not in costs and layers and isinstance(layers, list):
            checked.fault(f"budgets.{name}", "no choice has this cost", hint=did_you_mean(name, sorted(costs), "Costs"))
        if number is not None:
            budgets[name] = number
    return budgets


def _table(checked: _Checked, data: Any, costs: Sequence[str]) -> dict[str, dict[Entry, Candidate]]:
    table: dict[str, dict[Entry, Candidate]] = {}
    rows = checked.list_of(data, "layers", "layers")
    if isinstance(data, list) and not data:
        checked.fault("layers", expected="at least one layer", got="[]")
    for index, row in enumerate(rows):
        place = f"layers[{index}]"
        whole = checked.keys(row, place, {"name", "choices"})
        name = row.get("name", "") if isinstance(row, dict) else ""
        entries = _entries(checked, row["choices"], f"{place}.choices", costs) if whole else {}
        if isinstance(name, str) and name in table:
            checked.fault(f"{place}.name", "is the name of an earlier layer too", got=_written(name))
        elif isinstance(name, str) and name and name.isprintable():
            table[name] = entries
        elif whole:
            checked.fault(f"{place}.name", expected="a name of printable characters", got=_written(name))
    return table


def _entries(checked: _Checked, data: Any, place: str, costs: Sequence[str]) -> dict[Entry, Candidate]:
    entries: dict[Entry, Candidate] = {}
    if data == []:
        checked.fault(place, expected="at least one choice", got="[]")
    for index, row in enumerate(checked.list_of(data, place, "choices")):
        here = f"{place}[{index}]"
        checked.keys(row, here, {"weight_bits", "activation_bits", "harm", "costs"})
        given = row if isinstance(row, dict) else {}
        weight_bits, activation_bits = (
            checked.bits(given[key], f"{here}.{key}") if key in given else None
            for key in ("weight_bits", "activation_bits")
        )
        harm = checked.number(given["harm"], f"{here}.harm") if "harm" in given else None
        numbers = _costs(checked, given["costs"], f"{here}.costs", costs) if "costs" in given else {}
        if weight_bits is None or activation_bits is None:
            continue
        if (weight_bits, activation_bits) in entries:
            checked.fault(here, "has the bits of an earlier choice", got=f"{weight_bits}, {activation_bits}")
        entries[weight_bits, activation_bits] = (harm or 0, numbers)
    return entries


def _costs(checked: _Checked, data: Any, place: str, names: Sequence[str]) -> dict[str, int | float]:
    checked.keys(data, place, set(names))
    present = [name for name in names if isinstance(data, dict) and name in data]
    return {name: number for name in present if (number := checked.number(data[name], f"{place}.{name}")) is not None}


def _ties(checked: _Checked, data: Mapping[str, Any], table: Mapping[str, Mapping[Entry, Candidate]]) -> Ties:
    shares: dict[str, Callable[[Entry], object]] = {
        "both": lambda e: e,
        "weight": lambda e: e[0],
        "activation": lambda e: e[1],
    }
    found: dict[str, list[list[str]]] = {}
    for key, kind in GROUPS.items():
        found[kind] = []
        for index, group in enumerate(checked.list_of(data.get(key, []), key, "groups")):
            place = f"{key}[{index}]"
            members = [
                _member(checked, m, f"{place}[{i}]", table)
                for i, m in enumerate(checked.list_of(group, place, "layer names"))
            ]
            known = [name for name in members if name is not None]
            common = [{shares[kind](entry) for entry in table[name]} for name in known if table[name]]
            if common and not set.intersection(*common):
                checked.fault(place, f"{', '.join(known)} have no choice in common")
            found[kind].append(known)
    return Ties(**found)


def _member(checked: _Checked, name: Any, place: str, table: Mapping[str, Any]) -> str | None:
    if isinstance(name, str) and name in table:
        return name
    checked.fault(place, "no such layer", got=_written(name), hint=did_you_mean(name, sorted(table), "Layers"))
    return None

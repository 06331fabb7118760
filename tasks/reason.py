"""Why a cell runs, in the user's words: two identities compared."""

import json
from collections.abc import Mapping
from typing import Any

from tasks.record import Record

SHOWN = 3
ABSENT: Any = object()


def reason(before: Record | None, now: Record, fault: str | None = None) -> str:
    """What differs between what this cell was and what it would be.

    Args:
        before: the cell's last record; None on the first run.
        now: its identity today.
        fault: what `look_up` found wrong with a record of today's key.
    """
    if fault:
        return fault
    if before is None:
        return "first run"
    if before.key == now.key:
        return "record lost"
    differences = [
        *_code(before, now),
        *_params(before.params, now.params, "params"),
        *_inputs(before, now),
        *_facts(before, now),
    ]
    if before.contract != now.contract:
        differences.append(f"contract {before.contract} → {now.contract}")
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return "; ".join(differences[:SHOWN]) + more


def _code(before: Record, now: Record) -> list[str]:
    found = []
    for file in sorted({*before.closure, *now.closure}):
        old, new = before.closure.get(file), now.closure.get(file)
        if old is None or new is None:
            found.append(f"{file}: {'new' if old is None else 'no longer used'}")
            continue
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        verbs = [
            f"{name} {'added' if name not in old else 'removed' if name not in new else 'changed'}" for name in names
        ]
        if verbs:
            found.append(f"{file}: {', '.join(verbs)}")
    return found


def _params(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _params(old.get(key, ABSENT), new.get(key, ABSENT), f"{path}.{key}")]
    if ABSENT in (old, new):
        return [f"{path} added: {spoken(new)}" if old is ABSENT else f"{path} removed: {spoken(old)}"]
    return [] if old == new else [f"{path} {spoken(old)} → {spoken(new)}"]


def spoken(value: Any) -> str:
    """A value as an experiment file would spell it, cut after 40 characters."""
    plain = isinstance(value, str) and value
    text = "none" if value is None else value if plain else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _inputs(before: Record, now: Record) -> list[str]:
    found = []
    for name in sorted({*before.inputs, *now.inputs}):
        old, new = before.inputs.get(name), now.inputs.get(name)
        if old is None or new is None:
            found.append(f"input {name} {'added' if old is None else 'removed'}")
        elif old.sha256 != new.sha256:
            found.append(f"input {name} {old.sha256[:4]}… → {new.sha256[:4]}…")
    return found


def _facts(before: Record, now: Record) -> list[str]:
    names = sorted(name for name in {*before.facts, *now.facts} if before.facts.get(name) != now.facts.get(name))
    return [f"{name} {before.facts.get(name, 'none')} → {now.facts.get(name, 'none')}" for name in names]

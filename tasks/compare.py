"""What differs between two traced results: bits flipped, inputs changed, figures moved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixbit.dialects import DIALECTS, file_name
from tasks.record import Record
from tasks.trace import Lineage, Subject, lineage, resolve, users
from tasks.tracking import fetch_record, read_output
from tasks.tracking_runs import Run

POLICY = "policy.json"
REFERENCE = "_reference"  # inputs of a profile that are other results, measured beside it
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Change:
    """How one stage's identity differs; every value is (before, after), None where there is none."""

    code: tuple[str, ...]
    params: Mapping[str, Pair]
    facts: Mapping[str, Pair]
    sources: Mapping[str, Pair]


@dataclass(frozen=True)
class Difference:
    """`bits`: layer -> kind -> (before, after). `stages`: stage -> what changed. `figures`: name -> (before, after)."""

    policies: Pair
    bits: Mapping[str, Mapping[str, Pair]]
    stages: Mapping[str, Change]
    figures: Mapping[str, Pair]


def compare(url: str, before: str, after: str) -> Difference:
    """What differs between two things that `trace` understands.

    Raises:
        MixbitError: the server does not know one of them.
        TrackingUnavailable: no answer.
    """
    one, other = (_chain(url, resolve(url, what)) for what in (before, after))
    policies = _policy(one), _policy(other)
    names = [(_name(found) if found else None) for found in policies]
    bits = _flipped(*(json.loads(read_output(url, found, POLICY)) if found else {} for found in policies))
    stages = {stage: _change(url, one.get(stage), other.get(stage)) for stage in _ordered(one, other)}
    figures = _moved(_figures(url, one), _figures(url, other))
    changed = {stage: change for stage, change in stages.items() if change != Change((), {}, {}, {})}
    return Difference((names[0], names[1]), bits, changed, figures)


def _chain(url: str, subject: Subject) -> dict[str, Run]:
    """Stage -> the run behind the subject; nearest first, references of a profile left out."""
    if subject.run is None:
        return {}
    found = lineage(url, _start(subject.run))
    chain: dict[str, Run] = {}
    waiting = _start(subject.run)
    while waiting:
        run = found.runs[waiting.pop(0)]
        chain.setdefault(run.tags["mixbit.stage"], run)
        waiting += _next(found, run)
    return chain


def _start(run: Run) -> list[str]:
    """Of an experiment run, the deployable of its own budget; of a stage run, itself."""
    if not run.uses:
        return [run.run_id]
    budget = run.tags.get("mixbit.budget", "")
    own = ["deployable", f"deployable.{budget}"]
    return [run.uses[cell] for cell in own if cell in run.uses][:1] or list(run.uses.values())


def _next(found: Lineage, run: Run) -> list[str]:
    return [edge.maker for edge in found.edges[run.run_id] if edge.maker and not edge.name.endswith(REFERENCE)]


def _ordered(one: Mapping[str, Run], other: Mapping[str, Run]) -> list[str]:
    """From data to device."""
    return list(dict.fromkeys([*reversed(list(one)), *reversed(list(other))]))


def _policy(chain: Mapping[str, Run]) -> Run | None:
    """The run that made the policy of this chain."""
    made = [run for run in chain.values() if POLICY in run.outputs]
    return made[0] if made else None


def _name(run: Run) -> str:
    return run.outputs[POLICY]


def _flipped(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Pair]]:
    flipped = {}
    for layer in dict.fromkeys([*before, *after]):
        moved = _moved(before.get(layer, {}), after.get(layer, {}))
        if moved:
            flipped[layer] = moved
    return flipped


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Pair]:
    names = sorted({*before, *after})
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _change(url: str, before: Run | None, after: Run | None) -> Change:
    """Between two runs of one stage; the same run differs in nothing."""
    if before is not None and after is not None and before.run_id == after.run_id:
        return Change((), {}, {}, {})
    old, new = (fetch_record(url, run.run_id) if run else None for run in (before, after))
    if old is None or new is None:
        return Change(("only in the second" if old is None else "only in the first",), {}, {}, {})
    params = _moved(_flat(old.params), _flat(new.params))
    return Change(_code(old, new), params, _moved(old.facts, new.facts), _moved(_sources(old), _sources(new)))


def _code(old: Record, new: Record) -> tuple[str, ...]:
    """`file: function` of every function that differs."""
    lines = []
    for file in sorted({*old.closure, *new.closure}):
        names = _moved(old.closure.get(file, {}), new.closure.get(file, {}))
        lines += [f"{file}: {name}" for name in names]
    return tuple(lines)


def _sources(record: Record) -> dict[str, str]:
    """Inputs that no stage made; the others differ because their makers do."""
    return {name: one.sha256 for name, one in record.inputs.items() if "/" not in one.artifact}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            name: leaf
            for key, inner in value.items()
            for name, leaf in _flat(inner, f"{path}.{key}".strip(".")).items()
        }
    return {path: value}


def _figures(url: str, chain: Mapping[str, Run]) -> dict[str, float]:
    """Figures of every stage of the chain, and of the profiles of its deployable, by device."""
    figures = {f"{stage}.{name}": value for stage, run in chain.items() for name, value in run.metrics.items()}
    outputs = chain["deployable"].outputs if "deployable" in chain else {}
    made = {name: outputs[file_name(name)] for name in DIALECTS if file_name(name) in outputs}
    for run in users(url, made.values()):
        measured_here = any(run.inputs.get(name, ("", ""))[0] == sha256 for name, sha256 in made.items())
        if run.tags.get("mixbit.stage") == "profile" and measured_here:
            device = run.tags.get("device", "")
            figures |= {f"profile.{device}.{name}".replace("..", "."): value for name, value in run.metrics.items()}
    return figures

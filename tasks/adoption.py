"""Accepting a refactor as harmless: outputs that older code made count for today's key, and say so for ever."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mixbit.errors import MisuseError, MixbitError
from mixbit.load import load_method
from tasks.reason import reason
from tasks.record import Adopted, Record
from tasks.stage import Call, Context, identify, look_up, recompute
from tasks.store import Store

MEASURED = frozenset({"latency_table", "measured_policy", "profile"})  # their bytes are never the same twice


@dataclass(frozen=True)
class Candidate:
    """A cell without outputs for today's code.

    Attributes:
        call: the cell.
        identity: what it is today.
        before: what it was last time; None on a first run.
        obstacle: why its outputs can't be adopted; empty when they can.
    """

    call: Call
    identity: Record
    before: Record | None
    obstacle: str


def candidate(call: Call, context: Context) -> Candidate:
    """The cell, and whether code is all that differs from its last record."""
    identity = identify(call, context)
    before = context.store.latest(context.experiment, call.cell)
    return Candidate(call, identity, before, _obstacle(context.store, before, identity))


def _obstacle(store: Store, before: Record | None, identity: Record) -> str:
    if before is None or before.key == identity.key:
        return reason(before, identity)
    # With today's code put in its place, what is still told differs besides code.
    beside = reason(replace(before, closure=identity.closure), identity)
    if beside:
        return f"not only code differs: {beside}"
    if set(before.outputs) != set(load_method("tasks", identity.stage).OUTPUTS):
        return "the stage writes other files now"
    faults = {name: store.fault(output) for name, output in before.outputs.items()}
    return ", ".join(f"output {fault}: {name}" for name, fault in faults.items() if fault)


def check(found: Candidate, context: Context, progress: Callable[[int, int, str], None]) -> None:
    """Compute the cell with today's code, beside the store, and compare bytes.

    Raises:
        MisuseError: its stage is measured; bytes prove nothing.
        MixbitError: they differ.
    """
    if found.call.stage in MEASURED:
        hint = "Adopt it without --check, or let it run"
        raise MisuseError(found.call.cell, "measured: its bytes are never the same twice", hint=hint)
    assert found.before is not None
    with tempfile.TemporaryDirectory(prefix="mixbit-check-") as folder:
        scratch = replace(context, store=Store(Path(folder)), server=None)
        paths = {
            name: replace(artifact, path=artifact.path or context.store.blob(artifact.sha256))
            for name, artifact in found.call.inputs.items()
        }
        made = recompute(replace(found.call, inputs=paths), scratch, progress)
    differing = [name for name, output in found.before.outputs.items() if made.outputs.get(name) != output]
    if differing:
        what = f"today's code makes other bytes: {', '.join(differing)}"
        raise MixbitError(found.call.cell, what, hint="Nothing was adopted; let it run")


def adopt(found: Candidate, context: Context, why: str) -> Record:
    """Write the record of today's key with the outputs of before. The next run logs it.

    Args:
        found: a candidate without an obstacle.
        context: where and for whom.
        why: the user's reason; stays with the record and its MLflow run.
    """
    assert found.before is not None
    assert not found.obstacle
    before, identity, store = found.before, found.identity, context.store
    with store.lock(identity.stage, identity.key):
        record, _ = look_up(store, identity)
        if record is None:  # else a run has computed it meanwhile
            made = replace(before, key=identity.key, closure=identity.closure, inputs=identity.inputs, run_id=None)
            record = replace(made, adopted=Adopted(before.key, why))
            store.write_record(record)
        store.set_latest(context.experiment, found.call.cell, record)
    return record

"""`mixbit plan`: what a run would do and why, without torch, Prefect or MLflow."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import click

from flows.agreement import refuse_misfits
from flows.declaration import Declared
from flows.parameters import Parameters
from flows.pipeline import pipeline
from flows.sources import Stale, file_source, source
from mixbit.devices import known
from mixbit.devices.fingerprint import fingerprint_sha256
from mixbit.errors import MixbitError, RunError
from mixbit.experiment import Data, Proxy
from mixbit.policy import canonical_json
from tasks import tracking
from tasks.place import ROOT
from tasks.reason import reason
from tasks.record import Record
from tasks.stage import Artifact, Call, Context, Done, code_of, identify, look_up
from tasks.tracking_rest import ArtifactLost

State = Literal["cached", "on server", "pending", "will run", "may run"]
LOOK_S = 0.3
LINE = 78


@dataclass(frozen=True)
class Row:
    """One cell of the plan; `execution` is the same where two cells would be computed once."""

    stage: str
    cell: str
    state: State
    reason: str
    key: str | None = None
    run_id: str | None = None
    execution: str = ""


@dataclass(frozen=True)
class Unknown:
    """An artifact that only a run can tell; `causes` are the cells that will run, or DVC's stages.

    `made_by` stands for its digest: the execution and the file.
    """

    causes: tuple[str, ...]
    made_by: str


@dataclass(frozen=True)
class Unmade:
    """Outputs of a cell that has not run."""

    causes: tuple[str, ...]
    execution: str

    def __getitem__(self, file: str) -> Unknown:
        """Every output is unknown."""
        return Unknown(self.causes, f"{self.execution}/{file}")


@dataclass
class Planner:
    """Walks the pipeline and looks up instead of running."""

    declared: Declared
    context: Context
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    look: bool = True  # False: the cells and their code only, before a run

    def source(self, of: str | Data | Proxy) -> Artifact | Unknown | None:
        """What DVC or the user made; unknown while DVC has to make it again."""
        try:
            return source(of, self.declared)
        except Stale as stale:
            return Unknown((f"dvc {stale.name} ({stale.reason})",), f"dvc {stale.target}")

    def agrees(self, layers: Artifact | Unknown, p: Parameters) -> None:
        """Refuse what does not fit layers that are known here."""
        if self.look and (content := self.content(layers)) is not None:
            refuse_misfits(self.declared, p, content)

    def file(self, key: str) -> Artifact | None:
        """The file at a key path of the experiment."""
        return file_source(key, self.declared)

    def content(self, artifact: Artifact | Unknown) -> Any:
        """What a JSON artifact says; None where it is not on this machine."""
        known = isinstance(artifact, Artifact) and (here := self.context.store.blob(artifact.sha256)).is_file()
        return json.loads(here.read_bytes()) if known else None

    def figures(self, outputs: Done | Unmade) -> Mapping[str, float] | None:
        """The figures of a cell that has run; where it has not, the cells that depend on them are not told."""
        if isinstance(outputs, Done):
            return outputs.record.figures
        self.notes.append("what a `smallest` budget tries next depends on figures of cells that have not run")
        return None

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Done | Unmade:
        """Look one cell up."""
        cell = f"{name} {tag}".strip()
        given = {key: value for key, value in inputs.items() if value is not None}
        unknown = [value for value in given.values() if isinstance(value, Unknown)]
        if unknown and not self.look:
            code_of(Call(name, cell, params, {}), self.context)
        if unknown:
            causes = tuple(dict.fromkeys(cause for value in unknown for cause in value.causes))
            execution = _execution(name, params, given)
            self.rows.append(Row(name, cell, "may run", f"depends on {', '.join(causes)}", execution=execution))
            return Unmade(causes, execution)
        call = Call(name, cell, params, given)
        identity = identify(call, self.context)
        record, fault = look_up(self.context.store, identity)
        state: State = "cached"
        if record is None and (record := self._on_server(identity)) is not None:
            state = "on server"
        if record is None and name == "layers" and self.look:
            record = self._first_look(identity)
        if record is not None:
            pending = state == "cached" and record.run_id is None
            told = "computed, not uploaded yet" if pending else ""
            if record.adopted is not None:
                told = f"adopted: {record.adopted.reason}"
            self.rows.append(
                Row(name, cell, "pending" if pending else state, told, record.key, record.run_id, record.key)
            )
            return Done(record, "cached")
        why = reason(self.context.store.latest(self.context.experiment, cell), identity, fault)
        self.rows.append(Row(name, cell, "will run", why, identity.key, execution=identity.key))
        return Unmade((cell,), identity.key)

    def _on_server(self, identity: Record) -> Record | None:
        if self.context.server is None:
            return None
        try:
            run_id = tracking.find_stage(self.context.server, identity.key, timeout_s=LOOK_S)
            return tracking.fetch_record(self.context.server, run_id) if run_id else None
        except ArtifactLost:
            return None  # a run finds it altered too, and asks the next run of this key
        except MixbitError:
            self.notes.append("the tracking server does not answer: planned from this machine alone")
            self.context = replace(self.context, server=None)
            return None

    def _first_look(self, identity: Record) -> Record:
        """A network nobody has looked at yet: its layers need torch, so a child process runs that one stage."""
        self.notes.append(f"first look at {self.declared.experiment.model.factory}: ran `layers` in a child process")
        file = self.declared.sweep or self.declared.path
        command = [sys.executable, "-m", "flows.first_look", str(file), self.declared.cell]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=_child_environment())
        if ran.returncode:
            lines = [line.removeprefix("error: ") for line in ran.stderr.splitlines() if line.startswith("error: ")]
            raise RunError(lines or [f"layers: failed: {' '.join(ran.stderr.strip().splitlines()[-1:])}"])
        record = look_up(self.context.store, identity)[0]
        if record is None:
            raise MixbitError("layers", "the look at the network ended without a result", hint="Does your code exit?")
        return record


def _execution(name: str, params: Any, given: Mapping[str, Artifact | Unknown]) -> str:
    """What stands for the key of a cell whose inputs are not all known: one sweep runs with one state of the code."""
    inputs = {key: one.made_by if isinstance(one, Unknown) else one.sha256 for key, one in sorted(given.items())}
    content = {"stage": name, "params": params.model_dump(mode="json"), "inputs": inputs}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _child_environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }


def plan(declared: Declared, context: Context, *, look: bool = True) -> Planner:
    """Every cell's state and reason, in the order of a run."""
    planner = Planner(declared, context, look=look)
    planner.notes += _announced(declared)
    pipeline(declared, planner)
    return planner


def _announced(declared: Declared) -> list[str]:
    """A device on another machine is not asked: its keys hold what it announced last."""
    found = {name: known.read(name) for name in declared.experiment.devices}
    return [
        f"{name}: as it announced itself {said.announced_at}, fingerprint {fingerprint_sha256(said.fingerprint)[:8]}"
        for name, said in found.items()
        if said is not None
    ]


def as_json(planner: Planner, path: Path) -> Mapping[str, Any]:
    """The plan for machines."""
    cells = [
        {"stage": row.stage, "cell": row.cell, "state": row.state, "reason": row.reason, "key": row.key}
        for row in planner.rows
    ]
    return {"experiment": planner.declared.experiment.name, "file": path.name, "cells": cells, "notes": planner.notes}


def show(planner: Planner) -> None:
    """The plan as lines of at most 80 columns; a long reason stands on a line of its own."""
    width = max((len(row.cell) for row in planner.rows), default=0)
    for row in planner.rows:
        head = f"{row.cell:<{width}}  {row.state:<9}"
        click.echo(
            f"{head}  {row.reason}".rstrip() if len(head) + len(row.reason) < LINE else f"{head}\n    {row.reason}"
        )
    for note in dict.fromkeys(planner.notes):
        click.echo(note)
    states = Counter(row.state for row in planner.rows)
    click.echo(", ".join(f"{count} {state}" for state, count in states.items()))

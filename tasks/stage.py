"""The stage contract: identity, hit, commit. Plumbing: outside every closure, versioned by hand."""

import functools
import hashlib
import importlib.metadata
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

from mixbit.config import Settings
from mixbit.errors import MixbitError
from mixbit.load import load_method, load_module
from mixbit.policy import canonical_json
from tasks.closure import Closure, Snapshot, closure
from tasks.memo import source_sha256
from tasks.place import ROOT
from tasks.reason import reason
from tasks.record import CONTRACT_VERSION, Input, Record
from tasks.stage_server import fetched, is_logged, logged
from tasks.store import Store, disk_faults

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Work:
    """What a stage is given: inputs to read, a folder to write, a folder that survives a kill.

    Never its key: an output that names it would differ after any edit of the code, and all below would run again.

    Attributes:
        inputs: input name -> file with those bytes (read only; the name has no suffix).
        digests: input name -> sha256, 64 hex digits.
        out: write each of the stage's OUTPUTS here.
        checkpoint: self-checkpoints; kept when the process is killed, given again for the same key.
        progress: (done, total, note), called as often as the stage likes.
        root: the project's root folder.
        search_path: folders where user modules are looked up.
    """

    inputs: Mapping[str, Path]
    digests: Mapping[str, str]
    out: Path
    checkpoint: Path
    progress: Progress
    root: Path
    search_path: tuple[Path, ...]


@dataclass(frozen=True)
class Artifact:
    """Bytes by digest. `name` is `stage/file` of the maker, or `source`; `path` is set for a user's own file."""

    sha256: str
    name: str
    path: Path | None = None


@dataclass(frozen=True)
class Call:
    """One cell of the picture: a stage with its parameters and inputs. `cell` is what the screen calls it."""

    stage: str
    cell: str
    params: Settings
    inputs: Mapping[str, Artifact]


@dataclass(frozen=True)
class Done:
    """A cell that has its outputs; `was` says how it got them."""

    record: Record
    was: Literal["computed", "cached", "uploaded"]

    def __getitem__(self, file: str) -> Artifact:
        """The output `file`, ready to be an input."""
        return Artifact(self.record.outputs[file].sha256, f"{self.record.stage}/{file}")


@dataclass(frozen=True)
class Context:
    """Where and for whom stages run.

    Attributes:
        store: records and blobs of this machine.
        experiment: for whom.
        search_path: folders with the user's own modules.
        server: the tracking server, None for a look without one.
        tags: further tags of stage runs.
        snapshot: what this run has read of the code so far.
        on_server: run ids that this run has found FINISHED on `server`; added to.
    """

    store: Store
    experiment: str
    search_path: tuple[Path, ...]
    server: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    snapshot: Snapshot = field(default_factory=Snapshot)
    on_server: set[str] = field(default_factory=set)


def code_of(call: Call, context: Context) -> Closure:
    """The code that makes a cell's result, as this run read it first."""
    module = load_method("tasks", call.stage)
    named = module.modules(call.params) if hasattr(module, "modules") else ()
    return closure([f"tasks.{call.stage}", *named], context.search_path, context.snapshot)


def identify(call: Call, context: Context) -> Record:
    """The identity of a cell: a record without outputs.

    Raises:
        MixbitError: something that makes the result can't be hashed.
    """
    module = load_method("tasks", call.stage)
    code = code_of(call, context)
    facts = {name: _version(name) for name in getattr(module, "FACTS", ())} | code.packages
    if hasattr(module, "facts"):
        facts |= module.facts(call.params)
    params = call.params.model_dump(mode="json")
    inputs = {name: Input(artifact.sha256, artifact.name) for name, artifact in sorted(call.inputs.items())}
    identity = {
        "contract": CONTRACT_VERSION,
        "stage": call.stage,
        "closure": code.files,
        "params": params,
        "facts": facts,
        "inputs": {name: value.sha256 for name, value in inputs.items()},
    }
    key = hashlib.sha256(canonical_json(identity)).hexdigest()
    return Record(call.stage, key, params, inputs, code.files, dict(sorted(facts.items())), outputs={})


@functools.cache
def _version(package: str) -> str:
    """Parsing a package's metadata takes longer than all else of a key; one process sees one version."""
    return importlib.metadata.version(package)


def look_up(store: Store, identity: Record) -> tuple[Record | None, str | None]:
    """(a record whose outputs are all there and unaltered, or None; what was wrong with one that was found)."""
    record = store.record(identity.stage, identity.key)
    if record is None:
        return None, None
    faults = {name: store.fault(output) for name, output in record.outputs.items()}
    broken = [f"output {fault}: {name}" for name, fault in faults.items() if fault]
    return (None, ", ".join(broken)) if broken else (record, None)


def run_stage(call: Call, context: Context, announce: Callable[[str], None], progress: Progress) -> Done:
    """Give the cell its outputs: from this machine, from the server, or by computing them.

    Args:
        call: the cell.
        context: where and for whom.
        announce: told the reason once, just before anything is computed.
        progress: (done, total, note) while it is.

    Raises:
        MixbitError: the stage failed, its outputs are unsound, the disk is full, or the server went away.
    """
    with disk_faults(call.cell):
        identity = identify(call, context)
        record, _ = look_up(context.store, identity)
        if record is not None and is_logged(context, record):
            return _finish(call, context, record, "cached")
        with context.store.lock(identity.stage, identity.key):
            return _settle(call, context, identity, announce, progress)


def _settle(
    call: Call, context: Context, identity: Record, announce: Callable[[str], None], progress: Progress
) -> Done:
    """Under the lock: another process may have finished meanwhile."""
    store = context.store
    record, fault = look_up(store, identity)
    was: Literal["computed", "cached", "uploaded"] = "cached"
    if record is None:
        record = fetched(context, identity)
    if record is None:
        announce(reason(store.latest(context.experiment, call.cell), identity, fault))
        record, was = _compute(call, context, identity, progress), "computed"
        store.write_record(record)
        store.clear_partial(record.stage, record.key)
    if context.server is not None and not is_logged(context, record):
        record = logged(context, record, new=was == "computed")
        was = "uploaded" if was == "cached" else was
        store.write_record(record)
    return _finish(call, context, record, was)


def _finish(call: Call, context: Context, record: Record, was: Literal["computed", "cached", "uploaded"]) -> Done:
    context.store.set_latest(context.experiment, call.cell, record)
    context.store.tally(record.stage, was, record.seconds)
    return Done(record, was)


def recompute(call: Call, context: Context, progress: Progress) -> Record:
    """Compute a cell; nothing is remembered of it.

    Raises:
        MixbitError: as from `run_stage`.
    """
    with disk_faults(call.cell):
        return _compute(call, context, identify(call, context), progress)


def _compute(call: Call, context: Context, identity: Record, progress: Progress) -> Record:
    module = _imported(call, context)
    partial = context.store.partial(identity.stage, identity.key)
    shutil.rmtree(partial / "out", ignore_errors=True)
    for folder in (partial / "out", partial / "checkpoint"):
        folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: artifact.path or context.store.blob(artifact.sha256) for name, artifact in call.inputs.items()}
    digests = {name: artifact.sha256 for name, artifact in call.inputs.items()}
    work = Work(inputs, digests, partial / "out", partial / "checkpoint", progress, ROOT, context.search_path)
    began_s = time.monotonic()
    try:
        figures = module.compute(work, call.params)
    except SystemExit as error:
        hint = "Raise an exception instead"
        raise MixbitError(call.cell, f"code of yours left by sys.exit({error.code!r})", hint=hint) from error
    seconds = round(time.monotonic() - began_s, 3)
    _check_figures(call.cell, figures)
    _check_sources(call)
    outputs = {name: context.store.put(work.out / name) for name in _written(call.cell, module, work.out)}
    return replace(identity, outputs=outputs, figures=dict(sorted(figures.items())), seconds=seconds)


def _imported(call: Call, context: Context) -> ModuleType:
    """The stage's module, once all code of this run is imported and still is what the keys say.

    Raises:
        MixbitError: code was edited between the first look and the import; later edits wait for the next run.
    """
    if not context.snapshot.imported:
        for name in sorted(context.snapshot.modules):
            load_module(name, context.search_path)
        edited = context.snapshot.edited()
        if edited:
            hint = "Nothing was computed with it; run again"
            raise MixbitError(call.cell, f"{', '.join(edited)} changed while the run was starting", hint=hint)
        context.snapshot.imported = True
    return load_method("tasks", call.stage)


def _written(cell: str, module: ModuleType, out: Path) -> tuple[str, ...]:
    names = tuple(module.OUTPUTS)
    missing = [name for name in names if not (out / name).is_file()]
    assert not missing, f"{cell} did not write {missing}"
    return names


def _check_sources(call: Call) -> None:
    """A user's file that changed since it was hashed may have been read as it is now: nothing may carry this key."""
    for name, artifact in call.inputs.items():
        path = artifact.path
        if path is not None and source_sha256(path) != artifact.sha256:
            hint = "Nothing was kept; run again"
            raise MixbitError(f"{call.cell}: input {name}", f"{path.name} changed while it was read", hint=hint)


def _check_figures(cell: str, figures: Mapping[str, float]) -> None:
    bad = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if bad:
        raise MixbitError(cell, "a figure is not a number", expected="finite figures", got=bad)

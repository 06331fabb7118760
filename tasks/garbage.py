"""What the store holds that nothing reaches: found by following inputs back to their makers, removed under locks."""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mixbit.dialects import DIALECTS
from tasks.adoption import MEASURED
from tasks.record import Record
from tasks.store import Store

Kind = Literal["latest", "record", "unfinished", "partial", "blob"]
KINDS: tuple[Kind, ...] = ("latest", "record", "unfinished", "partial", "blob")  # in the order of removal
CHECKPOINT_DAYS = 7
DAY_S = 86400.0
HEX_DIGITS = 64


@dataclass(frozen=True)
class Garbage:
    """One thing that nothing reaches, and why nothing does."""

    kind: Kind
    name: str
    path: Path
    size_bytes: int
    reason: str


@dataclass(frozen=True)
class Kept:
    """Where reaching begins, besides what is not uploaded yet.

    Attributes:
        experiments: names whose latest cells are kept.
        gone: name of an experiment that is not kept -> where its file was.
        digests: sha256 of artifacts that stay reachable, with all that made them.
        keys: stage keys.
        deployables: keep every deployable with a run: an alias that can't be asked for might reach it.
    """

    experiments: frozenset[str] = frozenset()
    gone: Mapping[str, str] = field(default_factory=dict)
    digests: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    deployables: bool = False


def experiments(store: Store) -> list[str]:
    """Names of the experiments that left latest cells."""
    folder = store.folder / "latest"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def find(store: Store, kept: Kept, now_s: float | None = None) -> list[Garbage]:
    """Everything that nothing reaches, in the order of removal; nothing is changed.

    Args:
        store: the folder.
        kept: where reaching begins.
        now_s: seconds since the epoch; now by default.
    """
    records, broken = _records(store)
    used = reached(store, kept, records.values())
    blobs = {output.sha256 for record in records.values() if record.key in used for output in record.outputs.values()}
    found = [*_stale_cells(store, kept), *broken]
    found += [
        Garbage("record", _name(record), path, _size(path), "no kept experiment, alias or pinned file needs it")
        for path, record in records.items()
        if record.key not in used and path.is_file()
    ]
    found += _unfinished(store)
    found += _partials(store, {record.key for record in records.values()}, time.time() if now_s is None else now_s)
    found += [
        Garbage("blob", path.name[:12], path, _size(path), "no kept record has it")
        for path in sorted((store.folder / "blobs").glob("??/*"))
        if len(path.name) == HEX_DIGITS and path.name not in blobs
    ]
    return found


def reached(store: Store, kept: Kept, records: Iterable[Record]) -> set[str]:
    """Keys of the records that `kept` reaches: what made an input of something kept is kept too, whoever made it."""
    by_key = {record.key: record for record in records}
    makers: dict[str, set[str]] = defaultdict(set)
    for record in by_key.values():
        for output in record.outputs.values():
            makers[output.sha256].add(record.key)
    waiting = [record.key for record in by_key.values() if _is_root(record, kept)]
    waiting += [key for name in kept.experiments for key in _latest(store, name, makers)]
    waiting += [key for sha256 in kept.digests for key in makers[sha256]]
    used: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key in by_key and key not in used:
            used.add(key)
            waiting += [maker for read in by_key[key].inputs.values() for maker in makers.get(read.sha256, ())]
    return used


def remove_(store: Store, found: Iterable[Garbage]) -> list[Garbage]:
    """Remove what was found while `store.alone()` is held; what a computation holds is left.

    Records go before the blobs they name, so that a crash leaves blobs that the next `gc` finds, never a record of
    outputs that are gone.

    Returns:
        What was removed.
    """
    removed = []
    for one in sorted(found, key=lambda one: KINDS.index(one.kind)):
        if one.kind == "partial":
            with store.free(one.name) as is_free:
                if not is_free:
                    continue
                shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)
        removed.append(one)
    for folder in {one.path.parent for one in removed if one.kind == "latest"}:
        if not any(folder.iterdir()):
            folder.rmdir()
            (store.folder / "experiments" / f"{folder.name}.json").unlink(missing_ok=True)
    return removed


def _is_root(record: Record, kept: Kept) -> bool:
    if record.run_id is None or record.key in kept.keys:
        return True  # computed, but known to nobody else: the next run uploads it
    measured = [record.inputs[name] for name in DIALECTS if name in record.inputs]
    if record.stage in MEASURED and measured:
        return any(one.sha256 in kept.digests for one in measured)
    return record.stage == "deployable" and kept.deployables


def _latest(store: Store, experiment: str, makers: Mapping[str, set[str]]) -> Iterator[str]:
    """Keys of an experiment's latest cells, and of what made their inputs where the record itself is lost."""
    for path in (store.folder / "latest" / experiment).glob("*.json"):
        record = _read(path)
        if record is not None:
            yield record.key
            yield from (key for read in record.inputs.values() for key in makers.get(read.sha256, ()))


def _records(store: Store) -> tuple[dict[Path, Record], list[Garbage]]:
    records: dict[Path, Record] = {}
    broken = []
    for path in sorted((store.folder / "records").glob("*/*.json")):
        record = _read(path)
        if record is not None and (record.stage, record.key) == (path.parent.name, path.stem):
            records[path] = record
        elif path.is_file():
            name = f"{path.parent.name} {path.stem[:12]}"
            broken.append(Garbage("record", name, path, _size(path), "it is damaged"))
    return records, broken


def _read(path: Path) -> Record | None:
    try:
        return Record.from_json(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _size(path: Path) -> int:
    """0 where a run has removed it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _name(record: Record) -> str:
    return f"{record.stage} {record.key[:12]}"


def _stale_cells(store: Store, kept: Kept) -> Iterator[Garbage]:
    for name, was in sorted(kept.gone.items()):
        for path in sorted((store.folder / "latest" / name).glob("*.json")):
            cell = f"{name}: {path.stem.replace('@', ' ')}"
            yield Garbage("latest", cell, path, _size(path), f"{was} is gone")


def _unfinished(store: Store) -> Iterator[Garbage]:
    for folder in ("records", "latest", "experiments"):
        for path in sorted((store.folder / folder).rglob(".new-*")):
            yield Garbage("unfinished", path.name, path, _size(path), "a killed process was writing it")


def _partials(store: Store, keys: set[str], now_s: float) -> Iterator[Garbage]:
    """Scratch of stages that nobody computes now; a checkpoint that a run may resume stays for a while."""
    committed = {key[:24] for key in keys}
    for path in sorted((store.folder / "partial").glob("*-*")):
        with store.free(path.name) as is_free:
            if not is_free:
                continue
            files = [one for one in path.rglob("*") if one.is_file()]
            size_bytes = sum(_size(one) for one in files)
            idle_days = (now_s - max(one.stat().st_mtime for one in [path, *files])) / DAY_S
        if path.name.rpartition("-")[2] in committed:
            yield Garbage("partial", path.name, path, size_bytes, "the stage is finished")
        elif not any("checkpoint" in one.parts for one in files):
            yield Garbage("partial", path.name, path, size_bytes, "a killed stage left no checkpoint in it")
        elif idle_days > CHECKPOINT_DAYS:
            yield Garbage("partial", path.name, path, size_bytes, f"a checkpoint, untouched for {idle_days:.0f} days")

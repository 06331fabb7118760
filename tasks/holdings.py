"""What the store holds, stage by stage, how often it spared a computation, and whether every byte is as it was."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.memo import sha256_afresh
from tasks.record import Record
from tasks.store import Store


@dataclass(frozen=True)
class Holding:
    """One stage's share.

    Attributes:
        stage: its name.
        records: how many results are remembered.
        bytes: their outputs' sizes, one by one.
        unique_bytes: on disk: equal outputs are stored once, and count for the first stage that has them.
        cached: cells that found their outputs, here or on the server.
        computed: cells that had to be computed.
        spared_s: what the cached ones took when they were computed.
        spent_s: what the computed ones took.
    """

    stage: str
    records: int
    bytes: int
    unique_bytes: int
    cached: int
    computed: int
    spared_s: float
    spent_s: float


@dataclass(frozen=True)
class Fault:
    """An output that is not what it was; `records` are those that name it, as `stage key`."""

    sha256: str
    what: Literal["lost", "altered"]
    records: tuple[str, ...]


def holdings(store: Store) -> list[Holding]:
    """Every stage that has records or was counted."""
    by_stage: dict[str, list[Record]] = defaultdict(list)
    for record in records(store):
        by_stage[record.stage].append(record)
    counts, seen = _counts(store), set[str]()
    found = []
    for stage in sorted({*by_stage, *counts}):
        outputs = [output for record in by_stage[stage] for output in record.outputs.values()]
        new = {output.sha256: output.size_bytes for output in outputs if output.sha256 not in seen}
        seen |= new.keys()
        size_bytes = sum(output.size_bytes for output in outputs)
        found.append(Holding(stage, len(by_stage[stage]), size_bytes, sum(new.values()), *counts[stage]))
    return found


def check(store: Store) -> tuple[int, int, list[Fault]]:
    """Hash every blob again, whatever is remembered of it: (blobs, bytes, faults).

    A digest that is no longer true replaces the remembered one, so that the next run sees the fault as well.
    """
    users: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for record in records(store):
        for output in record.outputs.values():
            users[output.sha256].append(f"{record.stage} {record.key[:12]}")
            sizes[output.sha256] = output.size_bytes
    blobs = sorted((store.folder / "blobs").glob("??/*"))
    altered = [path.name for path in blobs if path.is_file() and sha256_afresh(path) != path.name]
    lost = sorted(sizes.keys() - {path.name for path in blobs})
    faults = [Fault(sha256, "altered", tuple(users[sha256])) for sha256 in altered]
    faults += [Fault(sha256, "lost", tuple(users[sha256])) for sha256 in lost]
    return len(blobs), sum(path.stat().st_size for path in blobs if path.is_file()), faults


def records(store: Store) -> Iterator[Record]:
    """Every record that can be read; none is dropped."""
    for path in sorted((store.folder / "records").glob("*/*.json")):
        try:
            yield Record.from_json(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue


def _counts(store: Store) -> dict[str, tuple[int, int, float, float]]:
    """Stage -> (cached, computed, seconds spared, seconds spent), over all runs; a torn line counts for nothing."""
    counts: dict[str, tuple[int, int, float, float]] = defaultdict(lambda: (0, 0, 0.0, 0.0))
    path = store.folder / "tally.jsonl"
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            stage, was, seconds = json.loads(line)
        except ValueError:
            continue
        cached, computed, spared_s, spent_s = counts[stage]
        if was == "computed":
            counts[stage] = cached, computed + 1, spared_s, spent_s + seconds
        else:
            counts[stage] = cached + 1, computed, spared_s + seconds, spent_s
    return counts

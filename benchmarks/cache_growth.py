"""What grows: cells of an experiment for `plan`, and runs in the tracking server's database for a look-up by key."""

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache_case import ROOT, Case, write

sys.path.insert(0, str(ROOT))

from flows.declaration import read_experiment
from flows.pipeline import pipeline
from flows.plan import Planner
from tasks import tracking
from tasks.record import Record
from tasks.stage import Call, Context, Done, identify, look_up
from tasks.store import Store

FIXED_CELLS, CELLS_A_BUDGET = 11, 6
REPEATS = 3


@dataclass
class Invented(Planner):
    """Gives every cell outputs that no stage made, where it has none: their bytes are the cell's name."""

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Any:
        """The record that is there, or an invented one."""
        cell = f"{name} {tag}".strip()
        given = {key: value for key, value in inputs.items() if value is not None}
        identity = identify(Call(name, cell, params, given), self.context)
        record, _ = look_up(self.context.store, identity)
        record = record or self._invented(identity, cell)
        self.context.store.set_latest(self.context.experiment, cell, record)
        return Done(record, "cached")

    def _invented(self, identity: Record, cell: str) -> Record:
        store, outputs = self.context.store, {}
        for name in ("policy.json", "finetuned_model.safetensors", "packed.onnx", "profile.json"):
            content = store.folder / "invented"
            content.write_bytes(f"{cell}/{name}".encode())
            outputs[name] = store.put(content)
        record = replace(identity, outputs=outputs, run_id="0" * 32)
        store.write_record(record)
        return record


def plan_seconds(case: Case, cells: int) -> dict[str, float]:
    """`mixbit plan --offline` of an experiment with about so many cells, all cached."""
    write(case.file, budgets=max(1, round((cells - FIXED_CELLS) / CELLS_A_BUDGET)))
    declared = read_experiment(case.file, ROOT)
    context = Context(Store(case.state), declared.experiment.name, declared.search_path, None)
    pipeline(declared, Invented(declared, context))
    case.mixbit("plan", "--offline", str(case.file))  # remembers digests
    times = [case.mixbit("plan", "--offline", str(case.file)) for _ in range(REPEATS)]
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli", "plan", "--offline", "--json", str(case.file)],
        cwd=ROOT, env=case.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    states = [cell["state"] for cell in json.loads(shown)["cells"]]
    assert set(states) == {"cached"}
    return {
        "cells": len(states),
        "plan_s_median": round(statistics.median(times), 2),
        "plan_s_max": round(max(times), 2),
    }


def lookup_ms(url: str, database: Path, runs: int) -> dict[str, float]:
    """Look-ups through the real server once its database holds so many stage runs."""
    keys = _filled(database, runs)
    some = keys[:: max(1, len(keys) // 20)][:20]
    acts = {
        "find_by_key_ms": lambda key: tracking.find_stage(url, key),
        "find_unknown_key_ms": lambda _key: tracking.find_stage(url, "0" * 64),
    }
    figures: dict[str, float] = {"runs": runs}
    for name, act in acts.items():
        times = []
        for key in some:
            began_s = time.perf_counter()
            act(key)
            times.append((time.perf_counter() - began_s) * 1000)
        figures |= {name: round(statistics.median(times), 1), f"{name}_max": round(max(times), 1)}
    return figures


def _filled(database: Path, runs: int) -> list[str]:
    """Bring the number of stage runs to `runs` by copying rows of one; the keys of all."""
    with sqlite3.connect(database, timeout=30) as connection:
        select = "SELECT value FROM tags WHERE key='mixbit.key'"
        have = len(connection.execute(select).fetchall())
        template = connection.execute("SELECT run_uuid FROM tags WHERE key='mixbit.key' LIMIT 1").fetchone()[0]
        for table in ("runs", "tags"):
            cursor = connection.execute(f"SELECT * FROM {table} WHERE run_uuid=?", (template,))  # noqa: S608
            columns, rows = [column[0] for column in cursor.description], cursor.fetchall()
            marks = ",".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", _copies(columns, rows, have, runs))  # noqa: S608
        return [row[0] for row in connection.execute(select)]


def _copies(columns: list[str], rows: list[Any], first: int, end: int) -> Iterator[list[Any]]:
    at = {name: columns.index(name) for name in ("run_uuid", "key", "value") if name in columns}
    for number in range(first, end):
        for row in rows:
            copy = list(row)
            copy[at["run_uuid"]] = f"{number:032x}"
            if "key" in at and row[at["key"]] == "mixbit.key":
                copy[at["value"]] = f"{number:064x}"
            elif "key" in at and row[at["key"]].startswith("mixbit.output"):
                copy[at["value"]] = f"|out={number:064x}|"
            yield copy

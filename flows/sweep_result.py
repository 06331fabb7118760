"""What a cell of a sweep came to, as a file: written by the cell's process, read by whoever shows the sweep."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from flows.summary import PolicyRow
from mixbit.policy import canonical_json
from tasks.store import write_atomic

EVENTS, RESULT, FAULT, LOG = "events.jsonl", "result.json", "fault", "log"
State = Literal["done", "partial", "failed"]


@dataclass(frozen=True)
class Result:
    """One cell's figures.

    Attributes:
        identity: digest of the keys of all its stages; equal where nothing has changed.
        state: partial without a device's figures; failed where a budget's result is not what was asked.
        faults: a line each.
        seconds: it took.
        computed: stages that were not found.
        metric: what it is called.
        maximize: which way it is better.
        rows: the closing table: references, budgets, baselines.
        runs: budget -> MLflow run.
        versions: budget -> registered version.
    """

    identity: str
    state: State
    faults: list[str]
    seconds: float
    computed: int
    metric: str
    maximize: bool
    rows: list[PolicyRow]
    runs: dict[str, str]
    versions: dict[str, str]

    def budget_rows(self) -> list[PolicyRow]:
        """The budgets' own rows."""
        return [row for row in self.rows if row.name in self.runs]


_RESULT = TypeAdapter(Result)


def identity_of(keys: Mapping[str, str]) -> str:
    """Digest of the key of every stage of a cell, by the stage's cell."""
    return hashlib.sha256(canonical_json(dict(keys))).hexdigest()


def write_result(folder: Path, result: Result) -> None:
    """Write it whole or not at all."""
    write_atomic(folder / RESULT, canonical_json(_RESULT.dump_python(result, mode="json")))


def read_result(folder: Path) -> Result | None:
    """The cell's last result; None where there is none that can be read."""
    try:
        return _RESULT.validate_json((folder / RESULT).read_bytes())
    except (OSError, ValidationError):
        return None

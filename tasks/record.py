"""The record: the small JSON that says a stage with this key made these outputs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mixbit.policy import canonical_json

CONTRACT_VERSION = 1
SEAL = "sha256"


@dataclass(frozen=True)
class Output:
    """One file a stage made."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Input:
    """One file a stage read; `artifact` is `stage/file` of its maker, or `source` for a user's own file."""

    sha256: str
    artifact: str


@dataclass(frozen=True)
class Adopted:
    """Outputs that other code made: the key they were made under, and why they count for today's code."""

    from_key: str
    reason: str


@dataclass(frozen=True)
class Record:
    """Evidence of one stage execution.

    `closure` is file -> function -> digest, so that a reason can be told later. `run_id` is None while the record is
    pending: computed, but not yet known to the tracking server. `adopted` is None where this very code made the
    outputs.
    """

    stage: str
    key: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Input]
    closure: Mapping[str, Mapping[str, str]]
    facts: Mapping[str, str]
    outputs: Mapping[str, Output]
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    run_id: str | None = None
    contract: int = CONTRACT_VERSION
    adopted: Adopted | None = None

    def to_json(self) -> bytes:
        """Canonical bytes, with a digest of themselves; a record that is not adopted does not mention adoption."""
        content = asdict(self)
        if self.adopted is None:
            del content["adopted"]
        return canonical_json({**content, SEAL: _sealed(content)})

    @classmethod
    def from_json(cls, content: bytes) -> "Record":
        """Parse; any deviation is a ValueError, TypeError or KeyError, which readers treat as no record."""
        data = json.loads(content)
        if data.pop(SEAL) != _sealed(data):
            raise ValueError("altered after it was written")
        data["inputs"] = {name: Input(**value) for name, value in data["inputs"].items()}
        data["outputs"] = {name: Output(**value) for name, value in data["outputs"].items()}
        if "adopted" in data:
            data["adopted"] = Adopted(**data["adopted"])
        return cls(**data)


def _sealed(content: Mapping[str, Any]) -> str:
    """Sha256 over everything else: a figure or a name that changed on the disk is no longer what was computed."""
    return hashlib.sha256(canonical_json(content)).hexdigest()

"""Numbers that are computed one by one and survive a kill, for methods that measure much and train nothing."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mixbit.errors import MixbitError
from mixbit.policy import canonical_json
from mixbit.training.resume import latest_checkpoint, write_checkpoint

EVERY_S = 10.0


class KeptNumbers:
    """Rows of numbers by name; each is computed once, also when the process is killed between two of them.

    Args:
        folder: of the checkpoints.
        identity: JSON value; rows kept under another one are not taken up.
        every_s: seconds between two checkpoints.
    """

    def __init__(self, folder: Path, identity: Any, every_s: float | None = None) -> None:
        self._folder, self._every_s = folder, EVERY_S if every_s is None else every_s
        self._identity = hashlib.sha256(canonical_json(identity)).hexdigest()
        found = latest_checkpoint(folder, self._identity)
        self._rows: dict[str, list[float]] = found[1]["rows"] if found else {}
        self._kept_at_s = time.monotonic()

    def row(self, name: str, compute: Callable[[], Iterable[float]]) -> list[float]:
        """The numbers of this name, computed unless they are known.

        Raises:
            MixbitError: one of them is NaN or infinite.
        """
        if name not in self._rows:
            row = list(compute())
            if not all(map(math.isfinite, row)):
                hint = "Check the weights, and the pictures for NaN"
                raise MixbitError(name, "NaN or infinity", expected="finite numbers", hint=hint)
            self._rows[name] = row
            if time.monotonic() - self._kept_at_s >= self._every_s:
                write_checkpoint(self._folder, len(self._rows), {}, {"identity": self._identity, "rows": self._rows})
                self._kept_at_s = time.monotonic()
        return self._rows[name]

"""Effect `promotion`: moves the alias `champion` of a registered model, and remembers every move."""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mixbit.errors import MixbitError
from tasks import tracking_rest as rest
from tasks.registration import CHAMPION, Version, find_version, point
from tasks.tracking_rest import TrackingRefused

HISTORY = "mixbit.champions"
KEPT = 40
VAL = "mixbit.val_metric"


@dataclass(frozen=True)
class Move:
    """One champion: which version, since when (UTC), why, and whether it came `back` by a rollback."""

    version: int
    at: str
    why: str
    back: bool = False


def promote(url: str, reference: str, why: str, *, back: bool = False) -> Version:
    """Make a version the champion of its registered model; nothing where it is already.

    Args:
        url: the tracking server.
        reference: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        why: for the history.
        back: whether this undoes the last promotion.

    Raises:
        MisuseError: the reference is none.
        MixbitError: no such version.
    """
    version = find_version(url, reference)
    now = champion(url, version.name)
    if now is not None and now.version == version.version:
        return version
    moves = history(url, version.name)
    if not moves and now is not None:
        moves = [Move(now.version, "", "the first version")]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _remember(url, version.name, [*moves, Move(version.version, at, why, back)])
    point(url, str(version), CHAMPION)
    return version


def rollback(url: str, name: str) -> Version:
    """Make the champion before this one the champion again.

    Raises:
        MixbitError: there was none before.
    """
    held = standing(history(url, name))
    if len(held) < 2:
        raise MixbitError(f"models:/{name}", "there is no champion before this one", hint="See `mixbit history`")
    return promote(url, f"models:/{name}/{held[-2]}", f"rolled back from {held[-1]}", back=True)


def standing(moves: Sequence[Move]) -> list[int]:
    """The champions that no rollback undid, the present one last."""
    held: list[int] = []
    for move in moves:
        held = held[:-1] if move.back else [*held, move.version]
    return held


def rejected(moves: Sequence[Move]) -> set[int]:
    """Versions that were rolled back from and not promoted again since."""
    found: set[int] = set()
    for before, move in itertools.pairwise(moves):
        found = found | {before.version} if move.back else found - {move.version}
    return found


def champion(url: str, name: str) -> Version | None:
    """The version that the alias names; None before there is one."""
    aliases = {one["alias"]: one["version"] for one in _model(url, name).get("aliases", [])}
    return find_version(url, f"models:/{name}/{aliases[CHAMPION]}") if CHAMPION in aliases else None


def history(url: str, name: str) -> list[Move]:
    """Every champion, oldest first.

    Raises:
        MixbitError: no such registered model.
    """
    told = rest.mapping(_model(url, name).get("tags", [])).get(HISTORY, "[]")
    return [Move(**one) for one in json.loads(told)]


def _model(url: str, name: str) -> dict[str, Any]:
    try:
        return dict(rest.get(url, "registered-models/get", {"name": name})["registered_model"])
    except TrackingRefused as error:
        raise MixbitError(f"models:/{name}", "no such registered model", hint="See the server's Models page") from error


def _remember(url: str, name: str, moves: list[Move]) -> None:
    told = json.dumps([asdict(move) for move in moves[-KEPT:]])
    rest.post(url, "registered-models/set-tag", {"name": name, "key": HISTORY, "value": told})
